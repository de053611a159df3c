"""A comparison's experiments, each in a folder that is complete or absent even if the comparison is killed.

A training writes into its own folder, ``<experiment>.attempt-<random>``, which is then renamed to the experiment's. So
a process that a killed comparison left behind cannot write into an experiment. The test scores are written after that,
also by one rename.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from fedpeft.common.files import read_json, sha256_of, write_json
from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import SETTINGS, Run, make_run
from fedpeft.data.datalist import DATALIST, SPLITS, Site, read_sites
from fedpeft.models.checkpoints.start import identity
from fedpeft.study.plan.changes import changed_inputs
from fedpeft.study.run.simulate import end_simulation
from fedpeft.tasks.scores import PLAIN, CaseScore, Scoring
from fedpeft.training.server.run_folder import DESCRIPTION, FINISHED, GLOBAL, RunFolder
from fedpeft.training.server.start import Start, read_start

LOCAL, FEDERATED, CENTRALIZED = SETTINGS
INITIAL = "initial"
MADE_FROM, TIMES, LOCK, WORKSPACE = "made_from.json", "times.json", ".lock", "workspace"
# A temporary file of ``common.files.replace``: .<name>.<random><ending of the name>.
LEFT = re.compile(r"\.[\w-]+(\.json|\.csv|\.md|\.png)\.\w{8}\1")


@dataclass(frozen=True)
class Plan:
    """Data, output and limits of a comparison.

    Attributes:
        data: folder of sites.
        out: where experiments and results go.
        checkpoint: file of the weights that the runs start from; None for random ones.
        seconds: time limit for one run of the simulator.
        device: torch device of every training.
        split: the split whose cases are tested.
        scoring: what the tests compute beside the task's own score.
        initial_run: folder of a finished run whose tensors every training starts from; None: from the initial model.
    """

    data: Path
    out: Path
    checkpoint: Path | None
    seconds: float
    device: str = "cpu"
    split: str = "test"
    scoring: Scoring = PLAIN
    initial_run: Path | None = None

    @property
    def workers(self) -> int:
        """Number of trainings at the same time; a GPU's memory suffices for one."""
        # One more than there are cores, since trainings differ in length.
        return (os.cpu_count() or 1) + 1 if self.device == "cpu" else 1

    def source(self) -> dict[str, str]:
        """The inputs of every experiment: fingerprints of data, checkpoint and initial run, and the device."""
        found = {"data": _fingerprint(self.data), "checkpoint": identity(self.checkpoint), "device": self.device}
        return found | ({"initial_run": sha256_of(self.initial_run / GLOBAL)} if self.initial_run else {})

    def start(self, run: Run) -> Start | None:
        """The tensors that a run starts from; None: those of its initial model.

        Raises:
            FileNotFoundError, ValueError: see ``read_start``.
        """
        return read_start(self.initial_run, run, self.checkpoint) if self.initial_run else None


def label(run: Run) -> str:
    """The name of a run in tables, plots and folders: its method, and the options that differ from the defaults."""
    own = make_run(run.model.method, run.data.dataset, run.model.backbone, classes=run.data.classes)
    marks = {"rank": "r", "prompts": "p", "blocks": "b", "width": "w"}
    others = [(name, value) for name, value in run.model.options if own.option(name) != value]
    return "-".join([run.model.method, *(f"{marks.get(name, name)}{value}" for name, value in others)])


@dataclass(frozen=True)
class Experiment:
    """A run in a setting: a model to train and test; ``site`` is empty unless the setting is local.

    The setting "initial" is the model before any training, which is only tested.
    """

    run: Run
    setting: str
    site: str = ""

    def folder(self, out: Path) -> Path:
        """The folder of the experiment's files."""
        return out / label(self.run) / f"seed-{self.run.training.seed}" / self.setting / self.site

    @property
    def model(self) -> str:
        """The name of the model in its run: "initial", "local/<site>", "federated" or "centralized"."""
        return f"{self.setting}/{self.site}" if self.site else self.setting

    @property
    def name(self) -> str:
        """The name of the experiment in log lines and messages."""
        return f"{label(self.run)}, seed {self.run.training.seed}, {self.setting}{f' {self.site}' if self.site else ''}"


def experiments_of(runs: Sequence[Run], settings: Sequence[str], sites: Sequence[Site]) -> list[Experiment]:
    """The experiments of a comparison without duplicates: each run's initial model and its trainings in the settings.

    Raises:
        ValueError: a setting is unknown, or two different runs would have the same folder.
    """
    for setting in settings:
        if setting not in SETTINGS:
            raise ValueError(f"unknown setting {setting!r}; known: {', '.join(SETTINGS)}")
    named: dict[tuple[str, int], Run] = {}
    for run in runs:
        if named.setdefault((label(run), run.training.seed), run) != run:
            raise ValueError(
                f"two runs are called {label(run)}, seed {run.training.seed}; give each comparison its own folder"
            )
    return [
        Experiment(run, setting, site)
        for run in named.values()
        for setting in (INITIAL, *dict.fromkeys(settings))
        for site in ([site.name for site in sites] if setting == LOCAL else [""])
    ]


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Lock the folder against a second comparison; the lock is released when the process ends, however it ends.

    Raises:
        RuntimeError: another comparison uses the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"another comparison works in {out}; wait for it, or give another folder") from error
        yield


def is_trained(plan: Plan, experiment: Experiment, source: dict[str, str]) -> bool:
    """Whether the experiment is trained with this run, these data and this checkpoint."""
    folder = experiment.folder(plan.out)
    if experiment.setting == INITIAL:
        return True
    if not (folder / "run" / DESCRIPTION).is_file() or not (folder / MADE_FROM).is_file():
        return False
    finished = RunFolder(folder / "run").description["status"] == FINISHED
    return finished and _inputs(folder / MADE_FROM) == made_from(experiment, source)


def refuse_replacing(plan: Plan, experiments: Sequence[Experiment], source: dict[str, str]) -> None:
    """Refuse to replace a finished training that has other inputs.

    Raises:
        ValueError: there is one; the message names the experiment and what differs.
    """
    for experiment in experiments:
        folder = experiment.folder(plan.out)
        if (folder / MADE_FROM).is_file() and (folder / "run" / DESCRIPTION).is_file():
            if RunFolder(folder / "run").description["status"] != FINISHED:
                continue
            differs = changed_inputs(_inputs(folder / MADE_FROM), made_from(experiment, source))
            if differs:
                raise ValueError(
                    f"{folder} holds {experiment.name}, trained with other {', '.join(differs)}; give another --out, "
                    f"or remove that folder to train it again"
                )


def _inputs(file: Path) -> dict[str, Any]:
    """A kept file with the inputs of an experiment; fields that its version did not have get their defaults."""
    content = read_json(file)
    for name, read in (("run", Run.from_dict), ("preprocessing", Preprocessing.from_dict)):
        with suppress(KeyError, TypeError, ValueError):
            content[name] = json.loads(json.dumps(read(content[name]).to_dict()))
    return content


def made_from(experiment: Experiment, source: dict[str, str]) -> dict[str, Any]:
    """Everything except the code on which an experiment's outcome depends, ready for JSON.

    It includes the registry entries: a changed method or preprocessing of the data set makes another experiment.
    """
    run = experiment.run
    entries = {
        "preprocessing": run.preprocessing.to_dict(),
        "method": run.method.to_dict(),
    }
    return json.loads(json.dumps(source | entries | {"run": run.to_dict()}))


@contextmanager
def attempt(folder: Path, made: dict[str, Any]) -> Iterator[Path]:
    """Yield a new folder that replaces the experiment's when the block ends; remove older contents and attempts.

    If the block fails, the new folder stays with its logs until the next attempt.

    Args:
        folder: the experiment's folder.
        made: the experiment's inputs, see ``made_from``.
    """
    if folder.exists():
        # Renamed first, so that a half-removed experiment is not taken for a finished one.
        folder.rename(_attempt(folder))
    for old in folder.parent.glob(f"{escape(folder.name)}.attempt-*"):
        end_simulation(old / WORKSPACE)
        shutil.rmtree(old, ignore_errors=True)
    new = _attempt(folder)
    write_json(new / MADE_FROM, made)
    yield new
    new.rename(folder)


def keep_scores(plan: Plan, experiment: Experiment, source: dict[str, str], scores: list[CaseScore]) -> None:
    """Write an experiment's test scores, the last step, which completes the experiment."""
    content = made_from(experiment, source) | {"scores": [item.to_dict() for item in scores]} | plan.scoring.to_dict()
    write_json(_scores_file(plan, experiment), content)


def has_scores(plan: Plan, experiment: Experiment) -> bool:
    """Whether the experiment is finished, with these inputs or with others."""
    return _scores_file(plan, experiment).is_file()


def kept_scores(plan: Plan, experiment: Experiment, source: dict[str, str]) -> list[CaseScore] | None:
    """A finished experiment's test scores.

    None if it is not finished, its inputs differ, or it was tested without one of the plan's metrics.
    """
    file = _scores_file(plan, experiment)
    if not file.is_file() or not is_trained(plan, experiment, source):
        return None
    content, made = _inputs(file), made_from(experiment, source)
    if {key: content.get(key) for key in made} != made or not plan.scoring.within(content):
        return None
    return [CaseScore.from_dict(item, plan.scoring.metrics) for item in content["scores"]]


def keep_time(folder: Path, what: str, seconds: float) -> None:
    """Record the seconds that an experiment's "train" or "test" took."""
    write_json(folder / TIMES, times(folder) | {what: seconds})


def times(folder: Path) -> dict[str, float]:
    """The recorded seconds of an experiment's "train" and "test"."""
    return read_json(folder / TIMES) if (folder / TIMES).is_file() else {}


def sweep(folder: Path) -> None:
    """Remove the temporary files of a killed comparison."""
    for file in folder.glob(".*"):
        if LEFT.fullmatch(file.name) and file.is_file():
            file.unlink()


def _attempt(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.attempt-{uuid.uuid4().hex[:8]}")


def _scores_file(plan: Plan, experiment: Experiment) -> Path:
    return experiment.folder(plan.out) / f"scores-{plan.split}.json"


def _fingerprint(data: Path) -> str:
    """SHA-256 of the datalists and of the names, sizes and times of their files; no image is read."""
    sha = hashlib.sha256()
    for site in read_sites(data):
        sha.update((site.root / DATALIST).read_bytes())
        for case in (case for split in SPLITS for case in site.splits[split]):
            for file in filter(None, (case.image, case.label)):
                status = file.stat()
                sha.update(f"{file.relative_to(site.root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return sha.hexdigest()
