"""The overview of compared classifiers: validation curves and confusion matrices."""

from pathlib import Path
from typing import Any

import numpy as np

from fedpeft.config.run import Run
from fedpeft.study.plots.masks import plot_curves
from fedpeft.study.plots.style import Axes, named, plt, save, title_of


def plot_confusions(results: dict[str, Any], run: Run, path: Path) -> Path:
    """Plot validation curves on the left and each setting's confusion matrix over all sites' cases on the right.

    Args:
        results: the content of results.json; the first run is shown.
        run: the first run.
        path: PNG to write.

    Returns:
        ``path``.
    """
    pooled = results["runs"][0]["pooled"]
    size = max(3.4, 0.42 * run.data.classes + 1.6)
    figure = plt.figure(figsize=(5 + size * len(pooled), size + 1), constrained_layout=True)
    figure.suptitle(named(results), fontsize=11)
    left, right = figure.subfigures(1, 2, width_ratios=(5, size * len(pooled)))
    plot_curves(left.subplots(), results)
    grid = right.subplots(1, len(pooled), squeeze=False)[0]
    names = list(run.label_table.values())
    for axes, (setting, found) in zip(grid, pooled.items(), strict=True):
        _matrix(axes, np.array(found["confusion"]), names)
        axes.set_title(f"{setting}: {title_of(results)} {found[run.task.metric]:.3f}", fontsize=9)
    grid[0].set_ylabel("true class")
    right.suptitle(f"{results['split']} cases of all sites: share of the true class", fontsize=10)
    return save(figure, path)


def _matrix(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (true, found), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[true, found] > 0.6 else "black"
            axes.text(found, true, f"{count}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("found")
