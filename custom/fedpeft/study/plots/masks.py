"""The overview of compared segmentations: validation curves, and masks on an example of each site."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator
from torch.nn import Module

from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.data.image_masks.masks import COLOURS
from fedpeft.study.plan.experiments import LOCAL
from fedpeft.study.plots.style import STYLES, Axes, Line2D, named, plt, save, title_of
from fedpeft.study.results.history import mean_curve

# Opacity of a mask's fill.
FILL = 0.25


@dataclass(frozen=True)
class Example:
    """What is shown of one case.

    Attributes:
        image: (H, W) grey or (H, W, 3) colour, as it is to be seen.
        label: (H, W) true indices of classes.
        predict: a model -> its mask (H, W), and its mean Dice of the whole case.
        limits: intensities that are black and white; None for colour.
        aspect: height of a pixel over its width.
    """

    image: np.ndarray
    label: np.ndarray
    predict: Callable[[Module], tuple[np.ndarray, float]]
    limits: tuple[float, float] | None = None
    aspect: float = 1.0


# (run, site, split) -> the site's example.
FindExample = Callable[[Run, Site, str], Example]


def plot_masks(
    results: dict[str, Any],
    sites: list[Site],
    models: dict[str, dict[str, Module]],
    examples: Sequence[Example],
    path: Path,
) -> Path:
    """Plot the curves of all settings on the left, and one case of each site with its masks on the right.

    Args:
        results: the content of results.json; the first run's curves are shown.
        sites: the folder's sites.
        models: column title -> site -> model that predicts there.
        examples: one for each site.
        path: PNG to write.

    Returns:
        ``path``.
    """
    lines, columns = len(sites), 1 + len(models)
    figure = plt.figure(figsize=(5.2 + 2.5 * columns, 2.6 * lines + 0.8), constrained_layout=True)
    figure.suptitle(named(results), fontsize=11)
    left, right = figure.subfigures(1, 2, width_ratios=(4.8, 2.5 * columns))
    plot_curves(left.subplots(), results)
    grid = right.subplots(lines, columns, squeeze=False)
    for line, site, example in zip(grid, sites, examples, strict=True):
        _overlay(line[0], example, example.label, f"{site.name}: truth")
        for axes, (title, by_site) in zip(line[1:], models.items(), strict=True):
            mask, score = example.predict(by_site[site.name].eval())
            _overlay(axes, example, mask, f"{title}: {score:.2f}")
    names = list(sites[0].labels.values())[1:]
    right.legend(
        handles=[Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(names)],
        loc="outside lower center",
        ncols=len(names),
        title="Dice of the whole case above each image",
    )
    return save(figure, path)


def plot_curves(axes: Axes, results: dict[str, Any]) -> None:
    """Plot validation over rounds in the settings' colours: local models as thin lines, the others as thick ones."""
    markers = cycle(".sDvP*")
    for model, sites in results["runs"][0]["history"].items():
        if not sites:
            continue
        setting = model.partition("/")[0]
        local = setting == LOCAL
        label = f"{model.removeprefix('local/')} alone, at home" if local else model
        axes.plot(
            *zip(*mean_curve(list(sites.values())), strict=True),
            label=label,
            linewidth=1.2 if local else 2.6,
            color=STYLES[setting][0],
            linestyle=STYLES[setting][2],
            marker=next(markers) if local else STYLES[setting][1],
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


def _overlay(axes: Axes, example: Example, mask: np.ndarray, title: str) -> None:
    """Plot an image with the mask's outlines, and a light fill, which shows a mask that covers nearly everything."""
    low, high = example.limits or (None, None)
    axes.imshow(example.image, cmap="gray", aspect=example.aspect, vmin=low, vmax=high)
    for value in range(1, int(mask.max()) + 1):
        inside, colour = mask == value, COLOURS[(value - 1) % len(COLOURS)]
        if inside.any():
            fill = np.where(inside[..., None], to_rgba(colour, FILL), 0.0)
            axes.imshow(fill, aspect=example.aspect, interpolation="nearest")
        if inside.any() and not inside.all():
            axes.contour(inside, levels=[0.5], colors=[colour], linewidths=1.2)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
