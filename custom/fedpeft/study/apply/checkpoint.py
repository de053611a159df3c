"""Find the checkpoint that a run starts from, outside of a FLARE site."""

from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.models.checkpoints.start import needs_file, own
from fedpeft.training.client.site_file import read_site_file, verified


def find_checkpoint(
    run: Run, checkpoint: Path | None = None, site_file: Path | None = None, must_exist: bool = True
) -> Path | None:
    """Return the file of the weights that a run starts from; None if it starts from random ones.

    Args:
        run: the run.
        checkpoint: file with the backbone's published weights; not needed where the package ships them.
        site_file: site file that names this file for each backbone; ``checkpoint`` takes precedence.
        must_exist: whether ``checkpoint`` must be a file; a comparison checks it together with all else.

    Raises:
        ValueError: the weights are not shipped and no argument names them, or ``checkpoint`` is given for a run that
            starts from random weights.
    """
    if run.model.initial == "random":
        if checkpoint:
            raise ValueError(f"--checkpoint {checkpoint} and random initial weights: give one of the two")
        return None
    if checkpoint:
        return verified(checkpoint, None) if must_exist else checkpoint
    if site_file:
        return read_site_file(site_file, "here").checkpoint(run)
    if needs_file(run):
        raise ValueError(
            f"{run.model.initial} weights of {run.model.backbone} are not shipped: give --checkpoint FILE, or "
            f"--site FILE that names them"
        )
    return own(run)
