"""The chart of validation curves, a panel for each site."""

from collections.abc import Sequence
from itertools import cycle
from math import ceil
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from fedpeft.study.plan.experiments import CENTRALIZED
from fedpeft.study.plots.style import (
    METHOD_COLOURS,
    STYLES,
    Axes,
    Figure,
    Line2D,
    compared,
    marker,
    plt,
    title_of,
    widen,
)
from fedpeft.study.results.history import Curve, aligned, mean_curve

ALL = "all sites"
# Panel -> (label, setting) -> one curve for each seed.
Curves = dict[str, dict[tuple[str, str], list[Curve]]]


def curves(results: dict[str, Any]) -> Figure | None:
    """Plot a panel for each site and one for all, with a line for the mean over seeds and a band for their range."""
    panels = _histories(results)
    if not panels:
        return None
    columns = min(4, len(panels))
    lines = ceil(len(panels) / columns)
    labels = [item["label"] for item in results["summary"]]
    size = 1 if len(labels) < 6 else 1.4
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(3.6 * size * columns, 3 * size * lines + 1),
        sharex=True,
        sharey=True,
        squeeze=False,
        constrained_layout=True,
    )
    colours = dict(zip(labels, cycle(METHOD_COLOURS), strict=False))
    # A single method leaves the colours to the settings.
    alone = len(labels) == 1
    for axes, (site, curves_of) in zip(grid.flat, panels.items(), strict=False):
        for (label, setting), seeds in curves_of.items():
            colour = STYLES[setting][0] if alone else colours[label]
            style = {"color": colour, "linestyle": STYLES[setting][2], "marker": marker(labels, label)}
            _line(axes, seeds, style)
        axes.set_title(site, fontsize=10)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("rounds")
        axes.label_outer()
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes in grid.flat[len(panels) - columns : len(panels)]:
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"mean validation {title_of(results)}")
    widen(grid.flat[0])
    if alone:
        figure.suptitle(labels[0], fontsize=10)
    handles = [
        *(
            Line2D([], [], color=colours[label], marker=marker(labels, label), label=label)
            for label in labels
            if not alone
        ),
        *(
            Line2D([], [], color=STYLES[setting][0] if alone else "0.3", linestyle=STYLES[setting][2], label=setting)
            for setting in compared(results["summary"])
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=9)
    return figure


def _line(axes: Axes, seeds: Sequence[Curve], style: dict[str, Any]) -> None:
    rounds, values = aligned(seeds)
    scores = np.array(values)
    axes.plot(rounds, scores.mean(axis=0), linewidth=1.6, markersize=4, markevery=max(1, len(rounds) // 8), **style)
    axes.fill_between(rounds, scores.min(axis=0), scores.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)


def _histories(results: dict[str, Any]) -> Curves:
    """The curves by panel; the pooled cases of centralized training go to the panel of all sites."""
    panels: Curves = {}
    for entry in results["runs"]:
        found: dict[str, list[Curve]] = {}
        for model, sites in entry["history"].items():
            setting = model.partition("/")[0]
            for site, curve in sites.items():
                panel = ALL if setting == CENTRALIZED else site
                panels.setdefault(panel, {}).setdefault((entry["label"], setting), []).append(curve)
                found.setdefault(setting, []).append(curve)
        for setting, sites in found.items():
            if setting != CENTRALIZED:
                panels.setdefault(ALL, {}).setdefault((entry["label"], setting), []).append(mean_curve(sites))
    return dict(sorted(panels.items(), key=lambda panel: (panel[0] == ALL, panel[0])))
