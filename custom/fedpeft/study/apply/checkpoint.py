"""The checkpoint that a run starts from, for what runs outside of a FLARE site."""

from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.models.checkpoints.start import needs_file, own
from fedpeft.training.client.site_file import read_site_file, verified


def find_checkpoint(run: Run, checkpoint: Path | None = None, site_file: Path | None = None) -> Path | None:
    """The weights that a run starts from; None where it starts from random ones.

    Args:
        run: whose backbone.
        checkpoint: file with the backbone's published weights; not needed where the package ships them.
        site_file: names that file for each backbone; ``checkpoint`` goes before it.

    Raises:
        ValueError: the weights are not shipped and no argument names them, or one does where the run uses none.
    """
    if run.model.initial == "random":
        if checkpoint:
            raise ValueError(f"--checkpoint {checkpoint} and random initial weights: give one of the two")
        return None
    if checkpoint:
        return verified(checkpoint, None)
    if site_file:
        return read_site_file(site_file, "here").checkpoint(run)
    if needs_file(run):
        raise ValueError(
            f"{run.model.initial} weights of {run.model.backbone} are not shipped: give --checkpoint FILE, or "
            f"--site FILE that names them"
        )
    return own(run)
