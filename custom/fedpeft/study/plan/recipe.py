"""Which runs a comparison is made of: a recipe, varied by method, rank and seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpeft.config.datasets import DATASETS
from fedpeft.config.jobs import JOBS
from fedpeft.config.methods import method
from fedpeft.config.run import Run
from fedpeft.data.datalist import read_sites

# Task -> the data set of a folder whose own name is no row.
PLAIN = {"segmentation": "folder", "classification": "images"}


def recipe(data: Path) -> Run:
    """The run that a folder of sites starts from: the recipe of its data set's job, with the data's classes.

    Raises:
        ValueError: the folder's data set has no job.
    """
    site = read_sites(data)[0]
    known = site.dataset in DATASETS and DATASETS[site.dataset].task == site.task
    name = site.dataset if known else PLAIN[site.task]
    for row in JOBS.values():
        if row.run.data.dataset == name:
            labels = tuple(site.labels.values())[row.run.task.background :]
            return row.run.with_(classes=site.classes, labels=labels)
    raise ValueError(f"{data}: no job has the data set {name!r}; known: {', '.join(JOBS)}")


def variations(
    start: Run,
    methods: Sequence[str],
    seeds: Sequence[int],
    ranks: Sequence[int],
    fields: Mapping[str, Any],
    rates: Mapping[str, float],
) -> list[Run]:
    """One run for each method, rank and seed, each once.

    Args:
        start: the recipe.
        methods: names of rows.
        seeds: of the runs.
        ranks: adapter ranks; none means every method's own. A method whose adapters have none is run once.
        fields: of the run that are changed for every method; they go before what a method's row brings.
        rates: method -> learning rate, 0 for the backbone's times the row's factor; other methods scale the recipe's.
    """
    runs = [
        start.with_(**dict(fields), **rank, **rate, method=name, seed=seed)
        for name in methods
        for rank in [{"rank": rank} for rank in ranks if method(name).ranked] or [{}]
        for rate in [{"learning_rate": rates[name]} if name in rates else {}]
        for seed in seeds
    ]
    return list(dict.fromkeys(runs))


def learning_rates(methods: Sequence[str], rate: float, one_rate: bool) -> dict[str, float]:
    """Method -> learning rate, from one number.

    Args:
        methods: names of rows.
        rate: learning rate of adapters; 0 means the backbone's.
        one_rate: whether every method takes it as it is; else each scales it by its row's factor.
    """
    return {name: rate if one_rate else rate * method(name).rate for name in methods}
