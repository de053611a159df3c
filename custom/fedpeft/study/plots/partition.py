"""Who has what: a picture of how cases and classes are spread over the sites."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedpeft.common.files import replace
from fedpeft.data.datalist import Site
from fedpeft.study.plots.style import COLOURS, plt

# Classes beyond the last colour take the colours again with another pattern.
HATCHES = ("", "////", "....", "xxxx")


def plot_partition(sites: Sequence[Site], path: Path) -> Path:
    """A bar a site: its training cases by class, its other cases as numbers behind it.

    Args:
        sites: at least one, of classification, with one label table.
        path: PNG to write; complete or absent.
    """
    labels = sites[0].labels
    counts = [Counter(case.target for case in site.splits["training"]) for site in sites]
    height = max(1.2 + 0.42 * len(sites), 0.6 + 0.21 * len(labels))
    figure, axes = plt.subplots(figsize=(9.5, height), constrained_layout=True)
    rows, left = np.arange(len(sites)), np.zeros(len(sites))
    for index, name in labels.items():
        width = np.array([count[index] for count in counts])
        axes.barh(
            rows, width, 0.72, left, label=name, color=COLOURS[index % len(COLOURS)], edgecolor="white", linewidth=0.5,
            hatch=HATCHES[index // len(COLOURS) % len(HATCHES)],
        )  # fmt: skip
        left += width
    for row, site, end in zip(rows, sites, left, strict=True):
        others = ", ".join(f"{len(site.splits[split])} {split}" for split in ("validation", "test"))
        axes.annotate(f"{end:.0f} ({others})", (end, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(rows, [site.name for site in sites])
    axes.invert_yaxis()
    axes.set(xlabel="training cases", xlim=(0, 1.45 * left.max()))
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    replace(path, lambda file: figure.savefig(file, dpi=110))
    plt.close(figure)
    return path
