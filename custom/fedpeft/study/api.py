"""The Python API that ``import fedpeft`` offers: the commands as functions, for scripts and notebooks.

import fedpeft

results = fedpeft.compare("data/phantom", "runs/example", methods=["flap_sam"], settings=["local"], rounds=2)
run = fedpeft.load_run("runs/example/flap_sam/seed-0/local/site-1")
mask, affine = run.predict("data/phantom/site-1/case-12/image.nii.gz")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import Module

from fedpeft.config.run import SETTINGS, Run
from fedpeft.study.apply import evaluation, inference
from fedpeft.study.apply.checkpoint import find_checkpoint
from fedpeft.study.plan.experiments import Plan
from fedpeft.study.plan.recipe import recipe, started_from, variations
from fedpeft.study.plan.rendering import render_job
from fedpeft.study.plots import can_plot
from fedpeft.study.run import compare as comparison
from fedpeft.study.run.compare import Report
from fedpeft.tasks.registry import task_of
from fedpeft.training.server.run_folder import BEST, GLOBAL, RunFolder, find_run

__all__ = ["LoadedRun", "compare", "compare_runs", "evaluate", "load_run", "render_job"]

# A volume's mask and its affine, an image's mask, or class -> probability.
Prediction = tuple[np.ndarray, np.ndarray] | np.ndarray | dict[str, float]


@dataclass(frozen=True)
class LoadedRun:
    """A finished run and its model.

    Attributes:
        folder: the run folder.
        checkpoint: file of the weights that the run started from; None if it started from random ones.
        which: file of the model, after the last round (``GLOBAL``) or the best validated one (``BEST``).
    """

    folder: RunFolder
    checkpoint: Path | None
    which: str

    @property
    def run(self) -> Run:
        """The run: its model, data, training and federation."""
        return self.folder.run

    @cached_property
    def model(self) -> Module:
        """The model, in evaluation mode on the CPU."""
        return self.folder.model(self.checkpoint, self.which)

    def rounds(self) -> list[dict[str, Any]]:
        """The records of the finished rounds: sites, losses, scores, bytes, seconds."""
        return self.folder.rounds()

    def predict(self, image: Path | str) -> Prediction:
        """Apply the model to one image, as ``fedpeft infer`` does.

        Args:
            image: a NIfTI volume (segmentation), or a JPEG or PNG file (image segmentation, classification).

        Returns:
            Segmentation: the mask, uint8 in the shape of the volume with the index of a class in each voxel, and the
            affine, (4, 4) float64 from voxels to millimetres; both on the volume's own grid. Image segmentation: the
            mask alone, uint8 (H, W). Classification: class name -> probability, which sum to 1.

        Raises:
            FileNotFoundError, ValueError: the file is missing or cannot be read; the message names it.
        """
        inference.check_image(self.run, Path(image))
        return task_of(self.run).predict(self.model, Path(image), self.run, self.folder.preprocessing).value


def load_run(path: Path | str, *, checkpoint: Path | str | None = None, best: bool = False) -> LoadedRun:
    """Find a finished run.

    Args:
        path: the run's folder, or any parent that holds one run.
        checkpoint: file with the backbone's published weights; not needed where the package ships them.
        best: whether to use the best validated model instead of the one after the last round.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: there are several runs (the message lists them), or the backbone's weights are not shipped.
    """
    folder = find_run(Path(path))
    weights = find_checkpoint(folder.run, _path(checkpoint))
    return LoadedRun(folder, weights, BEST if best else GLOBAL)


def evaluate(
    run: LoadedRun | Path | str,
    data: Path | str,
    split: str = "test",
    *,
    metrics: Sequence[str] = (),
    nsd_tolerance: float | None = None,
    save_predictions: Path | str | None = None,
) -> dict[str, Any]:
    """Score a finished run's model on a folder of sites.

    Args:
        run: a loaded run, or a path for ``load_run``.
        data: folder of <site>/datalist.json.
        split: "training", "validation" or "test".
        metrics: for segmentation, some of "hd95", "assd" and "nsd", beside Dice; see ``fedpeft.tasks.mask_metrics``.
        nsd_tolerance: surface distance in mm up to which NSD counts as correct; None for 2.
        save_predictions: for segmentation, folder for every case's mask on the image's own grid: <site>/<case>.nii.gz,
            or .png for images; a file of the same name is replaced, all others stay.

    Returns:
        The content of ``fedpeft evaluate --json``: the mean score over sites, each site's means, every case's scores.
        With further metrics, "metrics" has the unit, the better direction, the mean and its 95 % interval of each.

    Raises:
        FileNotFoundError, ValueError: see ``load_run``; or the data's classes are not the run's, a site has no labelled
            case in the split, the task has no such metric, or masks cannot be kept there.
    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    scoring, masks = task_of(loaded.run).scoring(metrics, nsd_tolerance), _path(save_predictions)
    return evaluation.evaluate(
        loaded.folder, Path(data), split, loaded.checkpoint, loaded.which, scoring, masks
    ).to_dict()


def compare(
    data: Path | str,
    out: Path | str,
    *,
    methods: Sequence[str] | None = None,
    settings: Sequence[str] | None = None,
    rounds: int | None = None,
    seed: int | Sequence[int] = 0,
    split: str = "test",
    metrics: Sequence[str] = (),
    nsd_tolerance: float | None = None,
    device: str = "cpu",
    checkpoint: Path | str | None = None,
    minutes: float = 600,
    initial_run: Path | str | None = None,
    report: Report = lambda progress, event: None,
    **fields: Any,
) -> dict[str, Any]:
    """Train and test methods in several settings; write results, tables and plots, as ``fedpeft compare`` does.

    A second call with the same ``out`` continues the first and does not repeat finished experiments. The function
    starts processes, so a script must call it below ``if __name__ == "__main__":``.

    Args:
        data: folder of <site>/datalist.json.
        out: folder for runs, results, tables and plots.
        methods: names that ``fedpeft methods`` lists; default: the initial run's, or the method of the data set's job.
        settings: some of "local", "federated" and "centralized"; default: all.
        rounds: number of rounds in every setting; default: that of the data set's job.
        seed: one seed or several.
        split: split whose cases are tested, "test" or "validation".
        metrics: for segmentation, some of "hd95", "assd" and "nsd", beside Dice; see ``fedpeft.tasks.mask_metrics``.
        nsd_tolerance: surface distance in mm up to which NSD counts as correct; None for 2.
        device: torch device of every training.
        checkpoint: file with the backbone's published weights; not needed where the package ships them.
        minutes: time limit for one run of FLARE's simulator.
        initial_run: a finished run, or a parent of one, whose trained tensors every training starts from; default: the
            initial model. It also gives preprocessing and stack ends, unless ``fields`` has a preprocessing.
        report: called with the progress and a line for people about the latest event.
        **fields: fields of the runs, such as ``rank=4`` or ``local_epochs=0.5``; they override the data set's job.

    Returns:
        The content of results.json, see ``fedpeft.study.results.results``.

    Raises:
        ValueError: a name is unknown, a value is out of range, or ``out`` contains other trainings; or checkpoint,
            device, data or disk would end an experiment: a FaultError, whose ``faults`` lists each with its remedy.
        RuntimeError: experiments failed; the message names each with its reason.
    """
    run = recipe(Path(data))
    changes = fields if rounds is None else fields | {"rounds": rounds}
    seeds = [seed] if isinstance(seed, int) else list(seed)
    first = find_run(Path(initial_run)) if initial_run else None
    if first:
        run = run.with_(method=first.run.model.method, **started_from(first.run, changes))
    runs = variations(run, methods or [run.model.method], seeds, (), changes, {})
    weights = find_checkpoint(runs[0], _path(checkpoint), must_exist=False)
    scoring = task_of(runs[0]).scoring(metrics, nsd_tolerance)
    plan = Plan(Path(data), Path(out), weights, 60 * minutes, device, split, scoring, first.path if first else None)
    return compare_runs(plan, runs, settings or SETTINGS, report)[0]


def compare_runs(
    plan: Plan, runs: Sequence[Run], settings: Sequence[str], report: Report
) -> tuple[dict[str, Any], list[Path]]:
    """Compare runs and plot the results.

    Returns:
        The content of results.json, and the files of the plots: none if matplotlib is not installed.
    """
    results = comparison.compare(plan, runs, settings, report)
    if not can_plot():
        return results, []
    from fedpeft.study.plots.charts import plot_charts
    from fedpeft.study.plots.overview import plot_overview

    overview = plot_overview(plan, runs[0], settings, results)
    return results, [overview, *plot_charts(results, plan.out)]


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
