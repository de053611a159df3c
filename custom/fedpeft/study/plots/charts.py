"""Charts of a comparison's numbers: score against bytes, curves, the spread over seeds, the gain by federation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fedpeft.study.plots.curves import curves
from fedpeft.study.plots.score_bytes import score_bytes
from fedpeft.study.plots.style import (
    METHOD_COLOURS,
    STYLES,
    Axes,
    Figure,
    compared,
    key,
    plt,
    save,
    scored,
    title_of,
    widen,
)

HATCHES = ("", "///", "...", "xxx")


def plot_charts(results: dict[str, Any], out: Path) -> list[Path]:
    """Write bytes.png, curves.png, seeds.png and gain.png, as far as there are results for them.

    Args:
        results: the content of results.json.
        out: folder of the charts; an older chart without results is removed.

    Returns:
        The written files.
    """
    charts: dict[str, Callable[[dict[str, Any]], Figure | None]] = {
        "bytes.png": score_bytes,
        "curves.png": curves,
        "seeds.png": _seeds,
        "gain.png": _gain,
    }
    files = []
    for name, chart in charts.items():
        figure = chart(results)
        if figure is None:
            (out / name).unlink(missing_ok=True)
            continue
        files.append(save(figure, out / name))
    return files


def _seeds(results: dict[str, Any]) -> Figure:
    """Plot a column for each method: every seed's Average as a point, and their mean as a bar."""
    summary = results["summary"]
    figure, axes = plt.subplots(figsize=(max(5.5, 1.1 * len(summary) + 2), 4.8), constrained_layout=True)
    settings = compared(summary)
    for index, item in enumerate(summary):
        for place, setting in enumerate(settings):
            if setting not in item["settings"]:
                continue
            values = item["settings"][setting]["seeds"]
            x = index + 0.24 * (place - (len(settings) - 1) / 2)
            colour, marker, _ = STYLES[setting]
            axes.plot([x] * len(values), values, marker, color=colour, markersize=6, alpha=0.75)
            if len(values) > 1:
                axes.hlines(fmean(values), x - 0.09, x + 0.09, color=colour, linewidth=2.5)
    _ticks(axes, [item["label"] for item in summary])
    axes.set(ylabel=f"mean {scored(results)} (Average)", xlim=(-0.6, len(summary) - 0.4))
    seeds = ", ".join(map(str, summary[0]["seeds"]))
    several = len(summary[0]["seeds"]) > 1
    axes.set_title(f"seeds {seeds}: a point each, a bar for their mean" if several else f"seed {seeds}", fontsize=10)
    widen(axes)
    axes.grid(alpha=0.3, axis="y")
    figure.legend(handles=key(settings), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _gain(results: dict[str, Any]) -> Figure | None:
    """Plot each site's federated minus local score at home, and the average with its interval."""
    items = [item for item in results["summary"] if item["gain"]]
    if not items:
        return None
    sites = list(items[0]["gain"]["sites"])
    figure, axes = plt.subplots(
        figsize=(max(6, 0.16 * len(items) * (len(sites) + 1) + 0.8 * len(sites) + 2), 4.8), constrained_layout=True
    )
    width = 0.8 / len(items)
    for index, item in enumerate(items):
        gain = item["gain"]
        x = np.arange(len(sites) + 1) + width * (index - (len(items) - 1) / 2)
        axes.bar(
            x,
            [*gain["sites"].values(), gain["average"]],
            width * 0.92,
            color=METHOD_COLOURS[index % len(METHOD_COLOURS)],
            hatch=HATCHES[index // len(METHOD_COLOURS) % len(HATCHES)],
            edgecolor="white",
            linewidth=0,
            label=item["label"],
        )
        axes.vlines(x[-1], gain["low"], gain["high"], color="black", linewidth=1.3)
    axes.axhline(0, color="black", linewidth=1)
    axes.axvline(len(sites) - 0.5, color="0.7", linewidth=1, linestyle=":")
    _ticks(axes, [*sites, "Average"])
    axes.set(ylabel=f"{title_of(results)}, federated - local at home")
    known = any(item["gain"]["low"] < item["gain"]["high"] for item in items)
    axes.set_title("gain by federation" + "; the line on the average is its 95 % interval" * known, fontsize=10)
    widen(axes)
    axes.grid(alpha=0.3, axis="y")
    figure.legend(loc="outside lower center", ncols=min(6, len(items)), fontsize=9)
    return figure


def _ticks(axes: Axes, names: Sequence[str]) -> None:
    # About 11 characters fit into an inch.
    figure = axes.get_figure(root=True)
    assert figure is not None
    crowded = len(names) * (max(map(len, names)) + 2) > 11 * figure.get_figwidth()
    turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(len(names)), names, **turned)
