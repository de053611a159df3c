"""The run folder, which every run writes in the same form: local, centralized or federated, finished or stopped.

- ``run.json``: the run, its progress and how it truly ended; written last in every round;
- ``global.safetensors``, ``best.safetensors``: all trained tensors as the sites receive them, after the last round and
  of the best validated model;
- ``exact.safetensors``: the server's own tensors after the last round, where a codec that rounds makes them differ;
- ``moments.safetensors``: what the server optimiser keeps for the next round, unless it is the average;
- ``rounds.jsonl``: one record for each round;
- ``metrics.csv``: the task's score per round, site and class.

Every file is replaced as a whole, so another process may read the folder while the run goes on.
"""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, equal
from torch.nn import Module

from fedpeft import __version__
from fedpeft.common.files import read_tensors, replace, write_json, write_tensors
from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import Run
from fedpeft.models.checkpoints.start import refuse_another
from fedpeft.models.initial import build
from fedpeft.models.payload import check, trainable, whole
from fedpeft.training.server.description import VERSIONS, read_description
from fedpeft.training.server.selection import Best, Scores, scores_of
from fedpeft.training.server.server_round import ServerState

DESCRIPTION, ROUNDS, METRICS = "run.json", "rounds.jsonl", "metrics.csv"
GLOBAL, BEST, EXACT, MOMENTS = (f"{name}.safetensors" for name in ("global", "best", "exact", "moments"))
RUNNING, FINISHED = "running", "finished"
PACKAGES = ("torch", "monai", "nvflare", "segment-anything", "nibabel", "numpy")


@dataclass(frozen=True)
class Progress:
    """The progress of a run, as its files tell it.

    Attributes:
        status: "running", "finished", or what stopped the run.
        rounds_done: finished rounds; their records are in rounds.jsonl.
        rounds: number of rounds of the run.
    """

    status: str
    rounds_done: int
    rounds: int

    @property
    def ended(self) -> bool:
        """Whether the run has ended; all files of the folder are then complete."""
        return self.status != RUNNING


class RunFolder:
    """Writes and reads one run folder.

    Args:
        path: the folder; it is created when it is first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(
        self, run: Run, setting: str, checkpoint_sha256: str, model_sha256: str, started_from: str | None = None
    ) -> None:
        """Write run.json of a run that begins; ``started_from`` is the fingerprint of another run's tensors, if any.

        Raises:
            FileExistsError: the folder contains a run.
        """
        if (self.path / DESCRIPTION).exists():
            raise FileExistsError(f"{self.path} holds a run already; give another folder, or delete it")
        write_json(
            self.path / DESCRIPTION,
            {
                "version": VERSIONS[-1],
                "run": run.to_dict(),
                "setting": setting,
                "checkpoint": {"backbone": run.model.backbone, "sha256": checkpoint_sha256},
                "model_sha256": model_sha256,
                **({"started_from": started_from} if started_from else {}),
                "preprocessing": run.preprocessing.to_dict(),
                "versions": {"fedpeft": __version__, "python": platform.python_version()}
                | {name: version(name) for name in PACKAGES},
                "status": RUNNING,
                "rounds_done": 0,
            },
        )

    def finish(self, status: str, **more: Any) -> None:
        """Record how the run truly ended: "finished", or what stopped it."""
        self._update(status=status, **more)

    def expect(self, run: Run, checkpoint_sha256: str, model_sha256: str) -> None:
        """Check that this is the run that a job continues.

        Raises:
            ValueError: the run, its checkpoint or its initial model differs; the message says which.
        """
        found = self.description
        was = {"run": self.run.to_dict(), "checkpoint": found["checkpoint"]["sha256"], "model": found["model_sha256"]}
        now = {"run": run.to_dict(), "checkpoint": checkpoint_sha256, "model": model_sha256}
        changed = ", ".join(f"{name} was {was[name]}, is {now[name]}" for name in was if was[name] != now[name])
        if changed:
            raise ValueError(f"the run cannot go on: {changed}; restore what it began with, or submit the job anew")

    def continued(self, after: list[int]) -> None:
        """Record that the run goes on in another job; ``after`` has the finished rounds each time that it did."""
        self._update(status=RUNNING, continued_after=after)

    def keep_round(self, before: ServerState, after: ServerState, record: dict[str, Any]) -> None:
        """Write a finished round; run.json, which counts it, comes last.

        Args:
            before: the state that entered the round.
            after: the state after it.
            record: the round's record, plain values for rounds.jsonl.
        """
        self.keep_validation(before, after.best, scores_of(self.run, record["sites"]))
        self.keep_exact(after.exact, after.decoded)
        if after.moments:
            write_tensors(self.path / MOMENTS, after.moments)
        self.record(before.rounds_done, record, after.decoded)

    def keep_validation(self, state: ServerState, best: Best | None, scores: Scores) -> None:
        """Write the sites' scores of a state's model, and the model itself if it is the best one so far.

        Args:
            state: the state whose model was validated.
            best: the best model so far, this validation included.
            scores: site -> class name -> mean score.
        """
        self.metrics(state.rounds_done, "validation", scores)
        if best is not None and best.rounds == state.rounds_done:
            self.keep_best(state.decoded, best)

    def state(self) -> ServerState:
        """The server's state after the last finished round; at least one round must have finished.

        Raises:
            ValueError: a file does not hold what the run trains.
        """
        decoded, found = self.tensors(), self.description
        exact = self.tensors(EXACT) if (self.path / EXACT).is_file() else decoded
        best = Best(found["best"]["rounds"], found["best"][self.measure]) if "best" in found else None
        moments = read_tensors(self.path / MOMENTS) if (self.path / MOMENTS).is_file() else {}
        return ServerState(found["rounds_done"], exact, decoded, best, moments)

    def record(self, round_: int, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Append a finished round and its averaged tensors.

        Args:
            round_: 0-based.
            record: plain values for rounds.jsonl.
            tensors: everything that the method may train, after the round.
        """
        write_tensors(self.path / GLOBAL, tensors)
        self._append(ROUNDS, json.dumps({"round": round_} | record, allow_nan=False) + "\n")
        self._update(rounds_done=round_ + 1)

    def keep_exact(self, tensors: dict[str, Tensor], decoded: dict[str, Tensor]) -> None:
        """Write the server's own tensors after a round if they differ from those that the sites receive."""
        if all(equal(tensor, decoded[key]) for key, tensor in tensors.items()):
            (self.path / EXACT).unlink(missing_ok=True)
        else:
            write_tensors(self.path / EXACT, tensors)

    def keep_best(self, tensors: dict[str, Tensor], best: Best) -> None:
        """Write the best validated tensors."""
        write_tensors(self.path / BEST, tensors)
        self._update(best={"rounds": best.rounds, self.measure: best.score})

    def metrics(self, round_: int, split: str, scores: Scores) -> None:
        """Append the sites' mean scores per class to metrics.csv.

        Args:
            round_: number of finished rounds of the scored model; 0 is the initial model.
            split: the split that was scored.
            scores: site -> class name -> mean score.
        """
        lines = [
            f"{round_},{site},{split},{label},{value:.6f}\n"
            for site, values in sorted(scores.items())
            for label, value in values.items()
        ]
        head = f"rounds,site,split,label,{self.run.task.of_class}\n"
        head = "" if (self.path / METRICS).exists() else head
        self._append(METRICS, head + "".join(lines))

    @property
    def description(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            ValueError: run.json is not in a form that this package reads; the message names it.
        """
        return read_description(self.path / DESCRIPTION)

    @property
    def run(self) -> Run:
        """The run that the folder describes.

        Raises:
            ValueError: run.json is not in the form that this package writes; the message names it.
        """
        try:
            return Run.from_dict(self.description["run"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path / DESCRIPTION} describes no run of fedpeft ({error})") from error

    @property
    def measure(self) -> str:
        """The name in run.json of the score by which the best model was chosen."""
        return f"validation_{self.run.task.metric}"

    @property
    def preprocessing(self) -> Preprocessing:
        """The normalisation of the training volumes.

        Raises:
            ValueError: run.json is not in the form that this package writes; the message names it.
        """
        try:
            return Preprocessing.from_dict(self.description["preprocessing"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path / DESCRIPTION} describes no preprocessing of fedpeft ({error})") from error

    def progress(self) -> Progress | None:
        """The run's progress, None before it has begun; safe to call while another process writes the folder."""
        if not (self.path / DESCRIPTION).is_file():
            return None
        found = self.description
        return Progress(found["status"], found["rounds_done"], self.run.federation.rounds)

    def rounds(self) -> list[dict[str, Any]]:
        """The records of the finished rounds."""
        if not (self.path / ROUNDS).is_file():
            return []
        return [json.loads(line) for line in (self.path / ROUNDS).read_text().splitlines()]

    def tensors(self, which: str = GLOBAL) -> dict[str, Tensor]:
        """All trained tensors after the last round (``GLOBAL``) or of the best validated model (``BEST``).

        Raises:
            ValueError: the file's tensors are not those that the run trains.
        """
        tensors = read_tensors(self.path / which)
        check(tensors, whole(self.run), str(self.path / which))
        return tensors

    def model(self, checkpoint: Path | None, which: str = GLOBAL) -> Module:
        """The run's model in evaluation mode: the initial model with the trained tensors.

        Raises:
            ValueError: the checkpoint is not the one that the run was trained from.
        """
        refuse_another(checkpoint, self.description["checkpoint"]["sha256"])
        model = build(self.run, checkpoint)
        parameters = trainable(model)
        for key, tensor in self.tensors(which).items():
            parameters[key].data.copy_(tensor)
        return model.eval()

    def _append(self, name: str, text: str) -> None:
        path = self.path / name
        before = path.read_text() if path.exists() else ""
        replace(path, lambda file: file.write_text(before + text))

    def _update(self, **values: Any) -> None:
        write_json(self.path / DESCRIPTION, self.description | values)


def find_run(path: Path) -> RunFolder:
    """The one run folder at or below ``path``.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: there are several runs; the message lists them.
    """
    found = sorted(file.parent for file in path.rglob(DESCRIPTION)) if path.is_dir() else []
    if not found:
        raise FileNotFoundError(f"no {DESCRIPTION} at or below {path}; give the folder of a run, or a parent of one")
    if len(found) > 1:
        raise ValueError(f"{len(found)} runs below {path}, choose one of: {', '.join(map(str, found))}")
    return RunFolder(found[0])
