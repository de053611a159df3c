"""The picture of a comparison of classifiers: validation curves, and which class is taken for which."""

from pathlib import Path
from typing import Any

import numpy as np

from fedpeft.common.files import replace
from fedpeft.config.run import Run
from fedpeft.study.plots.masks import plot_curves
from fedpeft.study.plots.style import Axes, plt, title_of


def plot_confusions(results: dict[str, Any], run: Run, path: Path) -> Path:
    """Curves on the left; on the right a confusion matrix a setting, of the cases of all sites together.

    Args:
        results: of a comparison; its first run is drawn.
        run: that run.
        path: PNG to write.
    """
    pooled = results["runs"][0]["pooled"]
    side = max(3.4, 0.42 * run.classes + 1.6)
    figure = plt.figure(figsize=(5 + side * len(pooled), side + 1), constrained_layout=True)
    left, right = figure.subfigures(1, 2, width_ratios=(5, side * len(pooled)))
    plot_curves(left.subplots(), results)
    grid = right.subplots(1, len(pooled), squeeze=False)[0]
    names = list(run.label_table.values())
    for axes, (setting, found) in zip(grid, pooled.items(), strict=True):
        _matrix(axes, np.array(found["confusion"]), names)
        axes.set_title(f"{setting}: {title_of(results)} {found[run.task_row.metric]:.3f}", fontsize=9)
    grid[0].set_ylabel("true class")
    right.suptitle(f"{results['split']} cases of all sites: share of the true class", fontsize=10)
    replace(path, lambda file: figure.savefig(file, dpi=110))
    plt.close(figure)
    return path


def _matrix(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("found")
