"""Plot the overview of a comparison, compare.png: choose and load the models that it shows."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.nn import Module

from fedpeft.common.devices import usable
from fedpeft.config.run import Run
from fedpeft.data.datalist import read_sites
from fedpeft.study.plan.experiments import Experiment, Plan
from fedpeft.study.plots.confusions import plot_confusions
from fedpeft.study.plots.image_masks import image_example
from fedpeft.study.plots.masks import FindExample, plot_masks
from fedpeft.study.plots.volume_masks import volume_example
from fedpeft.tasks.registry import task_of
from fedpeft.training.server.run_folder import RunFolder


def plot_overview(plan: Plan, run: Run, settings: Sequence[str], results: dict[str, Any]) -> Path:
    """Write compare.png of the first run, with the figure of its task."""
    return FIGURES[task_of(run).figure](plan, run, settings, results, plan.out / "compare.png")


def _masks(
    example: FindExample, plan: Plan, run: Run, settings: Sequence[str], results: dict[str, Any], path: Path
) -> Path:
    """Plot a case of each site with the masks of all settings."""
    sites = read_sites(plan.data)
    models: dict[str, dict[str, Module]] = {}
    for setting in settings:
        title = "own model" if setting == "local" else setting
        experiments = {site.name: Experiment(run, setting, site.name if setting == "local" else "") for site in sites}
        models[title] = {site: _model(plan, experiment) for site, experiment in experiments.items()}
    examples = [example(run, site, plan.split) for site in sites]
    return plot_masks(results, sites, models, examples, path)


def _confusions(plan: Plan, run: Run, settings: Sequence[str], results: dict[str, Any], path: Path) -> Path:
    """Plot the confusion matrix of each setting."""
    return plot_confusions(results, run, path)


# Name of a figure -> function that plots it.
FIGURES: dict[str, Callable[[Plan, Run, Sequence[str], dict[str, Any], Path], Path]] = {
    "masks": partial(_masks, volume_example),
    "image_masks": partial(_masks, image_example),
    "confusions": _confusions,
}


def _model(plan: Plan, experiment: Experiment) -> Module:
    return RunFolder(experiment.folder(plan.out) / "run").model(plan.checkpoint).to(usable(plan.device, "--device"))
