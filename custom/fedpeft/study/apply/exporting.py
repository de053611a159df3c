"""Write a run's model in the form of another program."""

from pathlib import Path

from torch import Tensor

from fedpeft.common.files import read_tensors
from fedpeft.config.run import Run
from fedpeft.models.initial import skeleton
from fedpeft.models.payload import whole
from fedpeft.models.peers.form import PEERS, PeerForm
from fedpeft.models.peers.placing import file_shapes
from fedpeft.models.peers.writing import write_pth
from fedpeft.study.apply.importing import FROZEN
from fedpeft.training.server.run_folder import GLOBAL, RunFolder


def export_file(name: str, folder: RunFolder, out: Path, checkpoint: Path | None, which: str = GLOBAL) -> str:
    """Write a run's model as another program's file.

    Args:
        name: form of the file, see ``fedpeft.models.peers``.
        folder: the run folder.
        out: file to write, .pth or .pt; its folder is created if it is missing.
        checkpoint: the weights that the run started from.
        which: file of the model, the last or the best one.

    Returns:
        What the file is, for people.

    Raises:
        ValueError: the form cannot hold the run (the message names one that can), or the checkpoint is not the run's.
    """
    form, run = PEERS.find(name), folder.run
    if not holds(form, run):
        fitting = [other.name for other in PEERS.values() if holds(other, run)]
        can = f"use --format {' or '.join(fitting)}" if fitting else "no format holds it"
        raise ValueError(f"{folder.path} is {_shown(run)}, which {form.title}'s files cannot hold: {can}")
    tensors = _tensors(form, folder, checkpoint, which)
    theirs = form.theirs(tensors)
    imported = folder.description.get("imported", {})
    write_pth(out, form.wrapped(theirs, folder.description["rounds_done"] or imported.get("epoch", -1) + 1))
    return form.described(form.measured(theirs))


def holds(form: PeerForm, run: Run) -> bool:
    """Whether a form's files hold everything that the run trained, in a network that the program builds."""
    if not form.writes or run.option("alpha") is not None or not whole(run).keys() <= file_shapes(run, form).keys():
        return False
    same = {"image_size": run.model.image_size, **dict(run.model.options)}
    networks = (run.config.with_(**same, method=method).resolve() for method in form.methods)
    return any(run.upscaling == other.upscaling and _shapes(run) == _shapes(other) for other in networks)


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in skeleton(run).state_dict().items()}


def _shown(run: Run) -> str:
    alpha = run.option("alpha")
    return f"a run of {run.model.method} with {run.model.backbone}{f' and alpha {alpha}' if alpha is not None else ''}"


def _tensors(form: PeerForm, folder: RunFolder, checkpoint: Path | None, which: str) -> dict[str, Tensor]:
    """The model's tensors that a file of the form holds."""
    state = folder.model(checkpoint, which).state_dict()
    kept = folder.path / FROZEN
    if kept.is_file():
        state |= read_tensors(kept)
    return {name: state[name].detach() for name in file_shapes(folder.run, form)}
