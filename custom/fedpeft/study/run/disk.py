"""Estimate the disk that a comparison needs, from the sizes of what its runs train."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from fedpeft.common.folders import parent_of
from fedpeft.config.codecs import CODECS
from fedpeft.config.run import Run
from fedpeft.data.cache import DISK, MEMORY
from fedpeft.data.datalist import Case, Site
from fedpeft.models.payload import trainable
from fedpeft.study.plan.experiments import FEDERATED, INITIAL, LOCAL, Experiment, Plan

# Logs, descriptions, scores and the job of an experiment.
SMALL = 2e6
# The global and the best tensors, which a run folder keeps, and the copy that is written beside them. A codec that
# rounds adds the exact ones, and the quantisation errors to a site's state.
KEPT, DRAFT = 2, 1
# A site keeps its last two states and writes the third: two moments and the trained tensors each.
STATES, PARTS = 3, 3


def disk_faults(
    plan: Plan, experiments: Sequence[Experiment], sites: Sequence[Site], models: Mapping[Run, nn.Module]
) -> list[str]:
    """Whether the output's disk has too little space for the run folders, and for the sites' states meanwhile.

    Args:
        plan: names the output.
        experiments: what is still to be done.
        sites: those of the federation.
        models: each run's model, on the meta device.
    """
    kept, meanwhile = needed(plan, experiments, sites, models)
    parent = parent_of(plan.out)
    free = shutil.disk_usage(parent).free
    if free >= kept + meanwhile:
        return []
    return [
        f"{parent}: {_megabytes(free)} free, {len(experiments)} experiments keep about {_megabytes(kept)} and need "
        f"{_megabytes(meanwhile)} more while they train; free space there, give another --out, or compare less at once"
    ]


def needed(
    plan: Plan, experiments: Sequence[Experiment], sites: Sequence[Site], models: Mapping[Run, nn.Module]
) -> tuple[float, float]:
    """Bytes that the experiments' folders keep, and bytes that are needed besides while they train."""
    trained = [experiment for experiment in experiments if experiment.setting != INITIAL]
    sizes = {run: 4 * sum(tensor.numel() for tensor in trainable(model).values()) for run, model in models.items()}
    kept, alone, together = len(experiments) * SMALL, [0.0], [0.0]
    for experiment in trained:
        size, rounded = sizes[experiment.run], not CODECS[experiment.run.federation.codec].exact
        kept += (KEPT + rounded) * size
        federated = experiment.setting == FEDERATED
        of_sites = (len(sites) if federated else 1) * (STATES * (PARTS + rounded) + bool(experiment.run.blocks))
        (together if federated else alone).append((DRAFT + of_sites) * size)
    return kept, max(sum(sorted(alone)[-plan.workers :]), max(together))


def cache_notes(experiments: Sequence[Experiment], sites: Sequence[Site], slices: Mapping[Case, int]) -> Iterator[str]:
    """Warn where the fitted images of a training find no place: it is as correct, but reads them again each time."""
    free = min(DISK, shutil.disk_usage(tempfile.gettempdir()).free // 2)
    for experiment in experiments:
        there = [site for site in sites if experiment.setting != LOCAL or site.name == experiment.site]
        cases = [case for site in there for split in ("training", "validation") for case in site.splits[split]]
        size = sum(slices[case] for case in cases) * _bytes_of_slice(experiment.run)
        if experiment.setting != INITIAL and size > MEMORY + free:
            yield (
                f"{experiment.name}: its fitted images take {_megabytes(size)}, of which memory holds "
                f"{_megabytes(MEMORY)} and {tempfile.gettempdir()} {_megabytes(free)}; the rest is read again each "
                "time it is needed: set TMPDIR to a folder of a larger disk"
            )
            return


def _bytes_of_slice(run: Run) -> int:
    """Bytes of a fitted slice and its label, or more than those of an image in colour."""
    return 5 * run.model.image_size**2


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
