"""Which weights a run starts from, and how they are identified."""

from pathlib import Path

from fedpeft.common.files import sha256_of
from fedpeft.config.run import Run
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.peers.recognition import hint

RANDOM = "random"


def needs_file(run: Run) -> bool:
    """Whether the user has to bring the run's checkpoint."""
    return run.model.initial != RANDOM and own(run) is None


def own(run: Run) -> Path | None:
    """The package's own checkpoint, where the run starts from it; None if it starts from another, or from none."""
    return shipped(run.backbone) if run.model.initial == "generic" else None


def identity(checkpoint: Path | None) -> str:
    """SHA-256 of a checkpoint; "random" where there is none."""
    return sha256_of(checkpoint) if checkpoint else RANDOM


def refuse_another(checkpoint: Path | None, sha256: str) -> None:
    """Check that a checkpoint is the one that a run was trained from.

    Raises:
        ValueError: its identity is not ``sha256``; the message says what it seems to be.
    """
    if (found := identity(checkpoint)) != sha256:
        more = hint(checkpoint) if checkpoint else ""
        raise ValueError(f"checkpoint {checkpoint} has SHA-256 {found}, the run was trained from {sha256}{more}")
