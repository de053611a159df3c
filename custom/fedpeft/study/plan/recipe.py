"""Make the runs of a comparison: a recipe, varied by method, rank and seed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpeft.config.datasets import DATASETS
from fedpeft.config.jobs import JOBS, Job
from fedpeft.config.methods import method
from fedpeft.config.presets import Recipe
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


def started_from(run: Run, given: Collection[str] = ()) -> dict[str, Any]:
    """The fields that a training takes from the finished run whose tensors it starts from: how that run saw images.

    Args:
        run: the finished run.
        given: fields that are set explicitly; with a preprocessing among them, nothing is taken.
    """
    if "preprocessing" in given:
        return {}
    found = {name: getattr(run.data, name) for name in ("preprocessing", "stack_ends")}
    return {name: value for name, value in found.items() if name not in given}


@dataclass(frozen=True)
class Applied:
    """What a training recipe sets in a comparison.

    Attributes:
        fields: fields of the runs.
        methods: method as asked for -> the entry that runs in its place.
        notes: what differs from the recipe or from the question, a sentence each, for people.
    """

    fields: dict[str, Any]
    methods: dict[str, str]
    notes: list[str]


def trained_by(
    entry: Recipe | None, data: Path | str | None, methods: Sequence[str], given: Collection[str] = ()
) -> Applied:
    """Fit a training recipe to a folder of sites and to the compared methods.

    Args:
        entry: the recipe; None sets nothing.
        data: folder of sites; or, where it is not known which sites there are, the data set's name, whose published
            weights then count; None: no site's weight is known.
        methods: names of methods, as asked for.
        given: fields that are set explicitly and override the recipe.

    Raises:
        ValueError: there is no site in the folder.
    """
    if entry is None:
        return Applied({}, {name: name for name in methods}, [])
    fields = dict(entry.fields) | ({"backbone": entry.backbone} if entry.backbone else {})
    runs = {name: entry.variants.get(name, name) for name in methods}
    notes = []
    if other := [f"{new} for {name}" for name, new in runs.items() if new != name]:
        notes.append(f"the recipe {entry.name} runs {', '.join(other)}")
    if fields["site_weighting"] == "published" and not {"site_weighting", "site_weights"} & set(given):
        known, sites = _published(data)
        if lacking := [name for name in sites if name not in known]:
            fields["site_weighting"] = "slices"
            notes.append(f"no weight is published for {', '.join(lacking)}: sites are weighted by their slices instead")
    return Applied(fields, runs, notes)


def _published(data: Path | str | None) -> tuple[Mapping[str, float], list[str]]:
    """Site -> its published weight, empty for a data set without them; and what needs a weight."""
    sites = read_sites(data) if isinstance(data, Path) else []
    name = sites[0].dataset if sites else str(data or "")
    entry = DATASETS.get(name)
    known = (entry and entry.site_weights) or {}
    return known, [site.name for site in sites] or ([] if known else [name or "unnamed data"])


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
