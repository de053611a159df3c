"""The overview of compared segmentations: validation curves, and masks on slices."""

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from torch.nn import Module

from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.data.volumes.volume import Volume
from fedpeft.study.plots.style import COLOURS as LINES
from fedpeft.study.plots.style import Axes, Line2D, plt, save, title_of
from fedpeft.study.results.history import mean_curve
from fedpeft.tasks.segmentation import SegmentationTask
from fedpeft.tasks.volume_masks import dice_of, predict_mask

# Okabe and Ito's colours, which people with any colour vision can tell apart: one for each class.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# Percentiles of a volume's intensities that are shown as black and as white.
WINDOW = (1, 99.5)


def plot_masks(
    results: dict[str, Any], sites: list[Site], models: dict[str, dict[str, Module]], run: Run, path: Path, split: str
) -> Path:
    """Plot the curves of all settings on the left, and one case of each site with its masks on the right.

    Args:
        results: the content of results.json; the first run's curves are shown.
        sites: the folder's sites.
        models: column title -> site -> model that predicts there.
        run: the run of these models.
        path: PNG to write.
        split: the split whose cases are shown.

    Returns:
        ``path``.
    """
    lines, columns = len(sites), 1 + len(models)
    figure = plt.figure(figsize=(5.2 + 2.5 * columns, 2.6 * lines + 0.8), constrained_layout=True)
    left, right = figure.subfigures(1, 2, width_ratios=(4.8, 2.5 * columns))
    plot_curves(left.subplots(), results)
    volumes = SegmentationTask()
    grid = right.subplots(lines, columns, squeeze=False)
    for line, site in zip(grid, sites, strict=True):
        _, volume = max(volumes.read(run, site, split, run.preprocessing), key=_foreground)
        index = _telling_slice(volume)
        _overlay(line[0], volume, _label(volume), index, f"{site.name}: truth")
        for axes, (title, by_site) in zip(line[1:], models.items(), strict=True):
            mask = predict_mask(by_site[site.name].eval(), volume, run)
            score = fmean(dice_of(mask, volume, run.data.classes))
            _overlay(axes, volume, mask, index, f"{title}: {score:.2f}")
    names = list(sites[0].labels.values())[1:]
    right.legend(
        handles=[Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(names)],
        loc="outside lower center",
        ncols=len(names),
        title="Dice of the whole volume above each slice",
    )
    return save(figure, path)


def plot_curves(axes: Axes, results: dict[str, Any]) -> None:
    """Plot validation over rounds: local models as thin lines, the others as thick ones."""
    axes.set_prop_cycle(color=LINES)
    for model, sites in results["runs"][0]["history"].items():
        if not sites:
            continue
        local = model.startswith("local/")
        label = f"{model.removeprefix('local/')} alone, at home" if local else model
        axes.plot(
            *zip(*mean_curve(list(sites.values())), strict=True),
            label=label,
            linewidth=1.2 if local else 2.6,
            linestyle="--" if local else "-",
            marker="." if local else "o",
            markersize=4,
        )
    axes.set(xlabel="round", ylabel=f"mean validation {title_of(results)}", ylim=(0, 1))
    axes.set_title("a local model is validated at its own site,\nthe federated one at every site", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "no validation cases", ha="center", va="center", transform=axes.transAxes)


def _foreground(item: tuple[str, Volume]) -> int:
    return int((_label(item[1]) > 0).sum())


def _label(volume: Volume) -> torch.Tensor:
    """The label of a volume that has one, as every scored volume does."""
    assert volume.label is not None
    return volume.label


def _telling_slice(volume: Volume) -> int:
    """The index of the slice with the most voxels of the volume's rarest class."""
    label = _label(volume)
    classes = [c for c in label.unique().tolist() if c]
    if not classes:
        return label.shape[-1] // 2
    rarest = min(classes, key=lambda c: int((label == c).sum()))
    return int((label == rarest).sum(dim=(0, 1)).argmax())


def _overlay(axes: Axes, volume: Volume, mask: torch.Tensor, index: int, title: str) -> None:
    """Plot a slice in radiological orientation (anterior up, patient's right on the left) with the mask's outlines."""
    grey = np.rot90(volume.image[:, :, index].numpy()[::-1])
    low, high = np.percentile(volume.image, WINDOW)
    axes.imshow(grey, cmap="gray", aspect=volume.spacing[1] / volume.spacing[0], vmin=low, vmax=high)
    labels = np.rot90(mask[:, :, index].numpy()[::-1])
    for value in range(1, int(mask.max()) + 1):
        if (labels == value).any():
            axes.contour(labels == value, levels=[0.5], colors=[COLOURS[(value - 1) % len(COLOURS)]], linewidths=1.2)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
