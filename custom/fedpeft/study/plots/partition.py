"""The plot of a partition: how cases and classes are spread over the sites."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedpeft.data.datalist import Site
from fedpeft.study.plots.style import COLOURS, plt, save

# Classes beyond the last colour reuse the colours with another pattern.
HATCHES = ("", "////", "....", "xxxx")


def plot_partition(sites: Sequence[Site], path: Path) -> Path:
    """Plot a bar for each site: its training cases by class, and the numbers of its other cases.

    Args:
        sites: at least one site, all of classification with the same label table.
        path: PNG to write; it is complete or absent.
    """
    labels = sites[0].labels
    counts = [Counter(case.target for case in site.splits["training"]) for site in sites]
    height = max(1.2 + 0.42 * len(sites), 0.6 + 0.21 * len(labels))
    figure, axes = plt.subplots(figsize=(9.5, height), constrained_layout=True)
    places, left = np.arange(len(sites)), np.zeros(len(sites))
    for index, name in labels.items():
        width = np.array([count[index] for count in counts])
        axes.barh(
            places, width, 0.72, left, label=name, color=COLOURS[index % len(COLOURS)],
            edgecolor="white", linewidth=0.5, hatch=HATCHES[index // len(COLOURS) % len(HATCHES)],
        )  # fmt: skip
        left += width
    for place, site, end in zip(places, sites, left, strict=True):
        others = ", ".join(f"{len(site.splits[split])} {split}" for split in ("validation", "test"))
        axes.annotate(
            f"{end:.0f} ({others})", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, [site.name for site in sites])
    axes.invert_yaxis()
    axes.set(xlabel="training cases", xlim=(0, 1.45 * left.max()))
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    return save(figure, path)
