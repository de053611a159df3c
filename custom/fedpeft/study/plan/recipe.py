"""Make the runs of a comparison: a recipe, varied by method, rank and seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpeft.config.datasets import DATASETS
from fedpeft.config.jobs import JOBS, Job
from fedpeft.config.methods import method
from fedpeft.config.run import Run, RunConfig
from fedpeft.config.tasks import TASKS
from fedpeft.data.datalist import Site, read_sites
from fedpeft.study.plan.changes import refuse_unused


def recipe(data: Path) -> RunConfig:
    """The recipe for a folder of sites: the run of its data set's job, with the data's own name and classes.

    A data set without a job gets the recipe of its task's default data set.

    Raises:
        ValueError: there is no site in the folder.
    """
    return job_of(data).run.with_(**facts_of(data))


def job_of(data: Path) -> Job:
    """The job of a folder's data set, or that of its task's default data set; ValueError as ``recipe``."""
    site = read_sites(data)[0]
    return _by_dataset().get(_dataset(site)) or default_job(site.task)


def default_job(task: str) -> Job:
    """The job of a task's default data set, which serves data without a job of its own."""
    return _by_dataset()[TASKS[task].dataset]


def facts_of(data: Path) -> dict[str, Any]:
    """The fields of a run that a folder of sites determines; ValueError as ``recipe``."""
    site = read_sites(data)[0]
    labels = tuple(site.labels.values())[TASKS[site.task].background :]
    return {"dataset": _dataset(site), "classes": site.classes, "labels": labels}


def _by_dataset() -> dict[str, Job]:
    return {job.run.data.dataset: job for job in JOBS.values()}


def _dataset(site: Site) -> str:
    """The data set's own name where it has an entry of its task, else that of the task's default data set."""
    entry = DATASETS.get(site.dataset)
    return site.dataset if entry is not None and entry.task == site.task else TASKS[site.task].dataset


def variations(
    start: RunConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    ranks: Sequence[int],
    fields: Mapping[str, Any],
    rates: Mapping[str, float],
) -> list[Run]:
    """One run for each method, rank and seed, without duplicates.

    Args:
        start: the recipe.
        methods: names of methods.
        seeds: seeds of the runs.
        ranks: adapter ranks; empty for every method's default. A method without a rank gets one run.
        fields: fields that are set for every method.
        rates: method -> its learning rate; all other methods derive theirs from the base learning rate.

    Raises:
        ValueError: no method has an option that ``fields`` sets, or values contradict each other.
    """
    if not (methods and seeds):
        raise ValueError("nothing to compare: name at least one method and one seed")
    if taken := {"method", "seed"} & fields.keys():
        raise ValueError(f"{min(taken)} is no field of all runs; name what is compared in methods and seeds")
    refuse_unused(start, {**fields, **({"rank": list(ranks)} if ranks else {})}, methods)
    runs = [
        start.with_(**dict(fields) | rank | rate | {"method": name, "seed": seed}).resolve()
        for name in methods
        for rank in [{"rank": rank} for rank in ranks if "rank" in method(name).options] or [{}]
        for rate in [{"learning_rate": rates[name]} if name in rates else {}]
        for seed in seeds
    ]
    return list(dict.fromkeys(runs))
