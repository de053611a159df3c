"""Start a run from the trained tensors of another one instead of the initial model's.

The server alone needs them. Sites build the initial model from checkpoint and seed, as always, and compare its
fingerprint with the server's; what they train is overwritten by the first download.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fedpeft.config.run import Run
from fedpeft.models.checkpoints.start import identity
from fedpeft.models.initial import build, fingerprint_of
from fedpeft.models.payload import whole
from fedpeft.models.peers.form import UNUSED
from fedpeft.training.server.run_folder import FINISHED, RunFolder

# Fields on which the tensors and their meaning depend.
SAME = ("backbone", "image_size", "initial", "options")


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        tensors: path -> tensor, for everything that the method may train.
        sha256: their fingerprint.
    """

    tensors: dict[str, Tensor]
    sha256: str


def read_start(path: Path, run: Run, checkpoint: Path | None) -> Start:
    """The tensors of a finished run from which another run starts.

    Args:
        path: folder of the finished run.
        run: the run that starts.
        checkpoint: file of the weights that it starts from; None for random ones.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: the run has another model, classes or checkpoint, or has not finished; the message says which.
    """
    folder = RunFolder(path)
    if differs := _differs(folder, run, checkpoint):
        raise ValueError(f"{run.model.method} cannot start from {path}: {differs}")
    tensors = folder.tensors()
    return Start(tensors, fingerprint_of(tensors))


def other_preprocessing(path: Path, run: Run) -> str:
    """How images entered a finished run's network differently from another run's, and the remedy; "" if they did not.

    Args:
        path: folder of the finished run.
        run: the run that starts from it.
    """
    folder = RunFolder(path)
    (was, data), (now, here) = ((item.data.preprocessing, item.data.dataset) for item in (folder.run, run))
    if was != now:
        return f"preprocessing {was}, here {now}: add --preprocessing {was}"
    old, new = folder.preprocessing.to_dict(), run.preprocessing.to_dict()
    differs = [name for name in old if old[name] != new[name]]
    return f"preprocessing {was} of {data}, here of {here}, which differs in {', '.join(differs)}" if differs else ""


def _differs(folder: RunFolder, run: Run, checkpoint: Path | None) -> str:
    """What keeps a run from starting there; "" if nothing does."""
    other, found = folder.run, folder.description
    if found["status"] != FINISHED:
        return f"it has not finished ({found['status']}); let it finish, or start from another"
    pairs: dict[str, tuple[object, object]] = {}
    if not train_alike(other, run):
        pairs["method"] = other.model.method, run.model.method
    pairs |= {name: (getattr(other.model, name), getattr(run.model, name)) for name in SAME}
    pairs |= {"classes": (other.data.classes, run.data.classes)}
    pairs |= {"checkpoint": (found["checkpoint"]["sha256"], identity(checkpoint))}
    wrong = [f"its {name} is {_shown(was)}, here {_shown(now)}" for name, (was, now) in pairs.items() if was != now]
    if wrong:
        return f"{', '.join(wrong)}; both must be the same"
    if run.blocks:
        return "its rounds send the tensors of some blocks alone, so sites would not receive the others"
    seeds = other.training.seed, run.training.seed
    if (seeds[0] != seeds[1] or other.method != run.method) and not _frozen_alike(other, run, checkpoint):
        if seeds[0] == seeds[1]:
            return f"its frozen tensors start otherwise; use --methods {other.model.method}"
        return f"frozen tensors start at random with seed {seeds[0]}, here {seeds[1]}; use its seed"
    return ""


def train_alike(one: Run, other: Run) -> bool:
    """Whether two runs' methods have the same network, trained tensors and averages; their starts may differ."""
    return one.method == other.method or _trained(one) == _trained(other)


def _trained(run: Run) -> tuple[object, ...]:
    tensors = {path: (shape, run.method.rule_of(path)) for path, shape in whole(run).items()}
    return [adapter.network for adapter in run.method.adapters], run.method.selects, run.upscaling, tensors


def _shown(value: object) -> str:
    pairs = value if isinstance(value, tuple) else ()
    return ", ".join(f"{name} {option}" for name, option in pairs) if pairs else repr(value)


def _frozen_alike(one: Run, other: Run, checkpoint: Path | None) -> bool:
    """Whether the frozen tensors that predictions depend on are the same with both runs' seeds."""
    trained = whole(one)
    mine, theirs = (build(run, checkpoint).state_dict() for run in (one, other))
    frozen = (name for name in mine if name not in trained and not name.startswith(UNUSED))
    return all(mine[name].equal(theirs[name]) for name in frozen)
