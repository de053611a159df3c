"""Make a run folder of a model that another program trained, as if the run had finished here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fedpeft.common.files import write_tensors
from fedpeft.config.backbones import BACKBONES, Backbone
from fedpeft.config.datasets import DATASETS, Dataset
from fedpeft.config.run import Run, RunConfig
from fedpeft.config.tasks import TASKS
from fedpeft.models.checkpoints.start import identity, own
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import check, trainable, whole
from fedpeft.models.peers.contents import WrongFileError, read_tensors_of
from fedpeft.models.peers.form import PEERS, Measured, PeerForm, Tensors, encoder_in
from fedpeft.models.peers.placing import ROUNDING, covering, distances, faults, frozen_part, lost, trained_part
from fedpeft.models.peers.recognition import described, form_of, refuse_other
from fedpeft.training.client.site_file import verified
from fedpeft.training.server.run_folder import DESCRIPTION, FINISHED, GLOBAL, RunFolder

T = TypeVar("T")
SETTING = "imported"
# The file's own values of tensors that the run takes from its base, where rounding makes them differ or no prediction
# depends on them; an export writes them back.
FROZEN = "frozen.safetensors"
SEGMENTATION = TASKS["segmentation"]


@dataclass(frozen=True)
class Imported:
    """A run made of another program's file.

    Attributes:
        folder: the run folder.
        seems: what the file is, for people.
        rounded: number of frozen tensors that differ from the base by rounding; the base's are used.
    """

    folder: RunFolder
    seems: str
    rounded: int = 0


def import_file(
    name: str,
    file: Path,
    out: Path,
    base: Path | None = None,
    *,
    backbone: str | None = None,
    method: str | None = None,
    **fields: Any,
) -> Imported:
    """Make a run folder of another program's file.

    Args:
        name: form of the file, see ``fedpeft.models.peers``.
        file: the file.
        out: the run folder to write.
        base: SAM's checkpoint that the file was trained from; None where the package ships it, or the file is one.
        backbone: name; default: the one of the file's width and depth.
        method: name; default: the method that trains least and holds everything that differs from the base.
        **fields: fields of the run, such as ``dataset`` and ``labels``; None is "not set".

    Raises:
        FileExistsError: ``out`` holds a run already.
        FileNotFoundError: there is no such file.
        ValueError: the file is another one, or does not fit the base, the backbone, the method or the classes; the
            message says what it seems to be and what to do.
    """
    form = PEERS.find(name)
    if (out / DESCRIPTION).exists():
        raise FileExistsError(f"{out} holds a run already; give another folder, or delete it")
    tensors, beside = read_tensors_of(file)
    refuse_other(file, tensors, form)
    found = _asked(form, file, form.measured, tensors)
    given = {key: value for key, value in fields.items() if value is not None}
    start = _config(form, found, file, _backbone(found, form, file, backbone), given)
    runs = [start.with_(method=item).resolve() for item in ([method] if method else form.methods)]
    make = _foundation if form.foundation else _adapted
    return make(form, file, tensors, base, runs, out, {"format": name, "sha256": identity(file)} | beside)


def _foundation(
    form: PeerForm, file: Path, tensors: Tensors, base: Path | None, runs: Sequence[Run], out: Path, source: Any
) -> Imported:
    """A run that starts from the file itself: its method's tensors are the initial ones."""
    if base is not None:
        others, _ = read_tensors_of(_existing(base))
        if tensors.keys() == others.keys() and all(tensor.equal(others[key]) for key, tensor in tensors.items()):
            raise WrongFileError(
                file,
                f"SAM's own checkpoint, as its tensors are those of {base}",
                f"there is nothing to import; give the file that {form.title} trained",
            )
    run = runs[0]
    model = build(run, file)
    _write(out, run, identity(file), fingerprint(model), trainable(model), {}, source)
    return Imported(RunFolder(out), described(form, tensors))


def _adapted(
    form: PeerForm, file: Path, tensors: Tensors, base: Path | None, runs: Sequence[Run], out: Path, source: Any
) -> Imported:
    """A run that starts from the base: its method's tensors are the file's."""
    ours = _asked(form, file, form.ours, tensors)
    fitting = _fitting(form, file, ours, runs)
    checkpoint = _base(form, file, tensors, base, fitting[0])
    model = build(fitting[0], checkpoint)
    initial = model.state_dict()
    apart = distances(ours, initial)
    run = covering(fitting, apart)
    if run is None:
        raise ValueError(_uncovered(file, checkpoint, fitting, apart))
    expected = whole(run)
    trained, frozen = trained_part(ours, expected), frozen_part(ours, expected, initial)
    check(trained, expected, str(file))
    _write(out, run, identity(checkpoint), fingerprint(model), trained, frozen, source)
    rounded = len(apart.keys() & frozen.keys())
    return Imported(RunFolder(out), described(form, tensors), rounded)


def _write(out: Path, run: Run, checkpoint: str, model: str, trained: Any, frozen: Tensors, source: Any) -> None:
    """Write the run folder; run.json, which makes it one, comes last."""
    write_tensors(out / GLOBAL, trained)
    if frozen:
        write_tensors(out / FROZEN, frozen)
    folder = RunFolder(out)
    folder.start(run, SETTING, checkpoint, model)
    folder.finish(FINISHED, imported=source)


def _asked(form: PeerForm, file: Path, ask: Callable[[Tensors], T], tensors: Tensors) -> T:
    """What a form says of a file's tensors, with its errors as messages about the file."""
    try:
        return ask(tensors)
    except KeyError as error:
        raise ValueError(f"{file} is an incomplete file of {form.title}: {error} is missing; save it again") from error
    except (ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"{file}, a file of {form.title}: {error}") from error


def _backbone(found: Measured, form: PeerForm, file: Path, name: str | None) -> Backbone:
    fitting = found.backbones
    if name:
        fitting = [entry for entry in fitting if entry.name == BACKBONES.find(name).name]
    if len(fitting) == 1:
        return fitting[0]
    seems = form.described(found)
    if name:
        entry = BACKBONES.find(name)
        raise ValueError(
            f"{file} is {seems}: its encoder has width {found.dim} and depth {found.depth}, {name} has {entry.dim} and "
            f"{entry.depth}; leave --backbone out, or name the right one"
        )
    known = [entry.name for entry in fitting or BACKBONES.values() if entry.family == "sam"]
    what = "several backbones have this size, name one with --backbone" if fitting else "no backbone has this size"
    raise ValueError(f"{file} is {seems}: {what}: {', '.join(known)}")


def _config(form: PeerForm, found: Measured, file: Path, entry: Backbone, given: dict[str, Any]) -> RunConfig:
    """What the file and the user say of the run, without a method."""
    pixels = found.image_size or min(form.image_size, entry.published_image_size)
    if not form.foundation and found.image_size and given.get("image_size", pixels) != pixels:
        raise ValueError(
            f"{file} is {form.described(found)}, --image-size is {given['image_size']}; leave --image-size out"
        )
    own = {"dataset": SEGMENTATION.dataset, "image_size": pixels, "backbone": entry.name, **form.data}
    values = own | given
    values |= {"classes": _classes(found, file, values), "initial": "medical" if form.foundation else None}
    return RunConfig.of(**values, **(found.options or {}))


def _classes(found: Measured, file: Path, values: dict[str, Any]) -> int:
    """The number of classes, on which file, data set and options must agree."""
    entry = _dataset(values["dataset"])
    names = [label for index, label in entry.labels or () if index]
    if entry.task != SEGMENTATION.name:
        raise ValueError(f"--dataset {entry.name} is for {entry.task}, but {file} segments; name another data set")
    labels = values.get("labels", ())
    options = (
        (f"--dataset {values['dataset']} ({', '.join(names)})", len(names)),
        (f"--labels {','.join(labels)}", len(labels)),
        ("--classes", values.get("classes", 0)),
    )
    said = {option: number for option, number in options if number}
    classes = found.classes or next(reversed(said.values()), 1)
    for option, number in said.items():
        if number != classes:
            has = (
                f"{file} has {classes} output{'s' if classes > 1 else ''}" if found.classes else f"there are {classes}"
            )
            raise ValueError(
                f"{has} besides background, {option} says {number}; name the data set that the file was trained "
                f"for, or its classes with --labels"
            )
    return classes


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        known = [entry.name for entry in DATASETS.values() if entry.task == SEGMENTATION.name]
        raise ValueError(f"--dataset is {name!r}, expected one of {', '.join(known)}; --labels names other classes")
    return DATASETS[name]


def _fitting(form: PeerForm, file: Path, ours: Tensors, runs: Sequence[Run]) -> list[Run]:
    """The runs whose networks the file's tensors are."""
    found = {run: faults(ours, run, form) for run in runs}
    fitting = [run for run, wrong in found.items() if not wrong]
    if not fitting:
        run, wrong = min(found.items(), key=lambda item: len(item[1]))
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        of_form = run.model.method in form.methods
        remedy = f"give a complete file of {form.title}" if of_form else "leave --method out"
        raise ValueError(
            f"{file} does not hold the network of {run.model.method} with {run.model.backbone} at "
            f"{run.model.image_size} px: {wrong[0]}{more}; {remedy}"
        )
    return fitting


def _existing(base: Path) -> Path:
    if not base.exists():
        raise FileNotFoundError(f"--base {base} does not exist; give SAM's checkpoint that the file was trained from")
    return base


def _base(form: PeerForm, file: Path, tensors: Tensors, base: Path | None, run: Run) -> Path:
    """The checkpoint that the file was trained from, of the same size."""
    seems = described(form, tensors)
    if base is None:
        shipped = own(run)
        if shipped is None:
            raise ValueError(f"{file} is {seems}: give SAM's checkpoint that it was trained from with --base FILE")
        return shipped
    others, _ = read_tensors_of(_existing(base))
    try:
        dim, depth, _ = encoder_in(others)
    except KeyError as error:
        other = form_of(others)
        what = f"seems to be {described(other, others)}" if other else f"holds no SAM, {error} is missing"
        raise ValueError(f"--base {base} {what}: give SAM's own checkpoint that {file} was trained from") from error
    if (dim, depth) != (run.backbone.dim, run.backbone.depth):
        raise ValueError(
            f"--base {base} holds SAM with {Measured(dim, depth).size}, but {file} is {seems}: give the checkpoint of "
            f"that size"
        )
    return verified(base, None)


def _uncovered(file: Path, base: Path, runs: Sequence[Run], apart: dict[str, float]) -> str:
    """The message about a file that no method covers."""
    run = min(runs, key=lambda item: len(lost(item, apart)))
    left = lost(run, apart)
    name, distance = left[0]
    methods = ", ".join(item.model.method for item in runs)
    return (
        f"{file}: {len(left)} tensors that {run.model.method} keeps frozen differ from {base}, the most {name!r} by "
        f"{distance:.1e} of its largest value (rounding is at most {ROUNDING:.0e}), and would be lost; methods with "
        f"this network: {methods}. Give the file that it was trained from as --base, or leave --method out"
    )
