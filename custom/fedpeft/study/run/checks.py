"""What is checked before the first experiment of a comparison, so that no hours are lost to what could be known.

Checked are the checkpoint (names and shapes for every run), the initial run, the device and its precision, the sites'
data (labels, splits, and the header of every file), the disk, and whether the output can be written. Not checked are
voxels, pixels and label values, which ``fedpeft data check`` reads: that takes as long as an epoch. Nothing is written.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import nn

from fedpeft.common.devices import usable
from fedpeft.common.faults import FaultError
from fedpeft.common.folders import unwritable
from fedpeft.common.precision import computing
from fedpeft.config.run import Run
from fedpeft.config.sections import Model
from fedpeft.data.datalist import DATALIST, SPLITS, Case, Site, pool
from fedpeft.data.modalities import modality
from fedpeft.models.checkpoints.reading import misfits
from fedpeft.models.initial import skeleton
from fedpeft.study.plan.experiments import CENTRALIZED, FEDERATED, INITIAL, Experiment, Plan, has_scores, label
from fedpeft.study.run.disk import cache_notes, disk_faults
from fedpeft.training.client.labels import check_labels
from fedpeft.training.server.weighting import check_sites

# Of a site's faulty cases, a list names as many and counts the others.
SHOWN = 5
LOG = logging.getLogger(__name__)


def refuse_faults(plan: Plan, experiments: Sequence[Experiment], sites: Sequence[Site]) -> None:
    """Check everything that can be known before the experiments that are not finished.

    Raises:
        FaultError: every fault that was found, one line each, with its remedy.
    """
    todo = [experiment for experiment in experiments if not has_scores(plan, experiment)]
    if not todo:
        return
    runs = list(dict.fromkeys(experiment.run for experiment in todo))
    models, of_models = skeletons(runs)
    slices, of_headers = header_faults(sites, runs)
    faults = [
        *output_faults(plan),
        *disk_faults(plan, [experiment for experiment in todo if experiment.run in models], sites, models),
        *device_faults(plan, runs),
        *of_models,
        *checkpoint_faults(plan, models),
        *start_faults(plan, runs),
        *label_faults(runs, sites),
        *weight_faults(todo, sites),
        *split_faults(plan, {experiment.setting for experiment in todo}, sites),
        *of_headers,
    ]
    if faults:
        raise FaultError("the comparison cannot begin", list(dict.fromkeys(faults)))
    for note in cache_notes(todo, sites, slices):
        LOG.warning(note)


def skeletons(runs: Iterable[Run]) -> tuple[dict[Run, nn.Module], list[str]]:
    """Run -> its model on the meta device, and why other runs have none: a method does not fit the backbone."""
    made: dict[tuple[Model, int, str], nn.Module] = {}
    models, faults = {}, []
    for run in runs:
        # Seeds and training do not change names and shapes.
        key = (run.model, run.data.classes, run.task.name)
        try:
            models[run] = made[key] = made.get(key) or skeleton(run)
        except ValueError as error:
            faults.append(f"{label(run)}: {error}")
    return models, list(dict.fromkeys(faults))


def checkpoint_faults(plan: Plan, models: Mapping[Run, nn.Module]) -> list[str]:
    """Why the checkpoint does not fit the runs' models, by names and shapes; the file is read once."""
    if plan.checkpoint is None or not models:
        return []
    # Runs with these in common have the same tensors outside of their adapters.
    distinct = {
        (run.model.backbone, run.model.image_size, run.task.name, run.upscaling, run.data.classes): (
            model,
            run.backbone,
        )
        for run, model in models.items()
    }
    return misfits(plan.checkpoint, distinct.values())


def start_faults(plan: Plan, runs: Iterable[Run]) -> list[str]:
    """Why runs cannot start from the plan's initial run: it has another model, or has not finished."""
    faults = []
    for run in runs:
        try:
            plan.start(run)
        except (ValueError, OSError) as error:
            faults.append(str(error))
    return faults


def device_faults(plan: Plan, runs: Iterable[Run]) -> list[str]:
    """Why the device cannot train the runs: it is not there, or lacks a precision."""
    try:
        torch.device(plan.device)
    except RuntimeError:
        return [f"device {plan.device!r} is not known to torch {torch.__version__}; give cpu or cuda:<index>"]
    try:
        device = usable(plan.device, "--device")
        for precision in sorted({run.training.precision for run in runs}):
            computing(precision, device)
    except RuntimeError as error:
        return [str(error)]
    return []


def label_faults(runs: Iterable[Run], sites: Iterable[Site]) -> list[str]:
    """Why the sites' tasks or label tables do not fit the runs."""
    tables = {(run.task.name, run.data.labels, run.data.classes): run for run in runs}
    faults = []
    for site in sites:
        for run in tables.values():
            try:
                check_labels(run, site)
            except ValueError as error:
                faults.append(str(error))
    return faults


def weight_faults(experiments: Iterable[Experiment], sites: Sequence[Site]) -> list[str]:
    """Why the sites of a federation cannot be weighted: a run names weights and leaves a site out, or another one."""
    names = ", ".join(site.name for site in sites)
    faults = [
        f"--site-weights: {other} is no site of {sites[0].root.parent}; its sites are {names}"
        for run in dict.fromkeys(experiment.run for experiment in experiments)
        for other in sorted(dict(run.federation.site_weights or ()).keys() - {site.name for site in sites})
    ]
    for run in dict.fromkeys(experiment.run for experiment in experiments if experiment.setting == FEDERATED):
        for site in sites if len(sites) > 1 else ():
            try:
                check_sites(run, [site.name])
            except ValueError as error:
                faults.append(str(error))
    return faults


def split_faults(plan: Plan, settings: Collection[str], sites: Sequence[Site]) -> list[str]:
    """What a site's splits lack: a case to train on, a case to test, a label of a case that is trained or scored."""
    trained = set(settings) - {INITIAL}
    faults = [
        f"site {site.name}: no case for training in {site.root}; move one there, or leave it out"
        for site in ([pool(sites)] if trained == {CENTRALIZED} else sites)
        if trained and not site.splits["training"]
    ]
    for site in sites:
        if not site.splits[plan.split]:
            faults.append(f"site {site.name}: no case for {plan.split} in {site.root}; move one there, or use --split")
        for split in dict.fromkeys((*(("training", "validation") if trained else ()), plan.split)):
            unlabelled = [case.case for case in site.splits[split] if not case.labelled]
            if unlabelled:
                faults.append(
                    f"site {site.name}: {_named(unlabelled)} of {split} without a label; give each one in "
                    f"{site.root / DATALIST}, or remove the cases from it"
                )
    return faults


def header_faults(sites: Iterable[Site], runs: Sequence[Run]) -> tuple[dict[Case, int], list[str]]:
    """Look at the header of every file of the sites.

    Returns:
        Case -> number of its slices or images, and the faults; of a site, the first ``SHOWN`` and a count of the rest.
    """
    slices: dict[Case, int] = {}
    faults: list[str] = []
    for site in sites:
        glance = modality(site.task).glance
        of_site = []
        for case in (case for split in SPLITS for case in site.splits[split]):
            slices[case], found = glance(case, runs[0].preprocessing)
            of_site += found
        faults += of_site[:SHOWN]
        if len(of_site) > SHOWN:
            more = len(of_site) - SHOWN
            faults.append(
                f"site {site.name}: {more} more faulty cases; fedpeft data check {site.root.parent} lists all"
            )
    return slices, faults


def output_faults(plan: Plan) -> list[str]:
    """Why nothing can be written to the output's folder."""
    return list(filter(None, [unwritable(plan.out, "--out")]))


def _named(cases: Sequence[str]) -> str:
    """Some names, and how many others there are."""
    more = f" and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
    return f"{len(cases)} case{'s' if len(cases) > 1 else ''} ({', '.join(cases[:SHOWN])}{more})"
