"""The style that all plots share: colours, markers, matplotlib without a screen, and saving of figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from fedpeft.common.files import replace
from fedpeft.config.tasks import TASKS
from fedpeft.study.plan.experiments import CENTRALIZED, FEDERATED, INITIAL, LOCAL
from fedpeft.study.results.summary import EVERYWHERE

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen before pyplot is imported
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

__all__ = [
    "COLOURS",
    "METHOD_COLOURS",
    "STYLES",
    "Axes",
    "Figure",
    "Line2D",
    "Summary",
    "compared",
    "key",
    "marker",
    "named",
    "plt",
    "save",
    "scored",
    "title_of",
    "widen",
]

# Okabe and Ito's colours, which people with any colour vision can tell apart, without yellow: too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Setting -> colour, marker, line style.
STYLES = {LOCAL: ("#E69F00", "s", "--"), FEDERATED: ("#0072B2", "o", "-"), CENTRALIZED: ("#009E73", "^", ":")}
# Where a colour stands for a method, it is no setting's.
METHOD_COLOURS = tuple(colour for colour in COLOURS if colour not in {style[0] for style in STYLES.values()})
# An axis of scores shows at least this range, so that it does not blow up noise.
LEAST_RANGE = 0.05

Summary = Sequence[dict[str, Any]]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, complete or not at all, and close it; return the file."""
    replace(path, lambda file: figure.savefig(file, dpi=110))
    plt.close(figure)
    return path


def scored(results: dict[str, Any]) -> str:
    """The name of a comparison's scores, such as "test Dice"."""
    return f"{results['split']} {title_of(results)}"


def title_of(results: dict[str, Any]) -> str:
    """The title of the task's metric, such as "Dice"."""
    return TASKS[results["summary"][0]["task"]].title


def named(results: dict[str, Any]) -> str:
    """Which run a plot of a single one shows, such as "flap_sam, seed 0", and of how many methods it is the first."""
    label, methods = results["runs"][0]["label"], len(results["summary"])
    first = f" (the first of {methods} methods)" if methods > 1 else ""
    return f"{label}, seed {results['summary'][0]['seeds'][0]}{first}"


def widen(axes: Axes) -> None:
    """Let a vertical axis of scores show ``LEAST_RANGE`` at least, with the data in the middle."""
    low, high = axes.get_ylim()
    lack = max(0.0, LEAST_RANGE - (high - low))
    axes.set_ylim(low - lack / 2, high + lack / 2)


def compared(summary: Summary) -> list[str]:
    """The training settings in which any method was compared."""
    there = {setting for item in summary for setting in item["settings"]} - {INITIAL, EVERYWHERE}
    return [setting for setting in STYLES if setting in there]


def key(settings: Sequence[str]) -> list[Line2D]:
    """A legend's entries for settings that are plotted as points."""
    return [
        Line2D([], [], color=STYLES[setting][0], marker=STYLES[setting][1], linestyle="", label=setting)
        for setting in settings
    ]


def marker(labels: Sequence[str], label: str) -> str:
    """The marker of a label's line; labels beyond the last colour reuse the colours with another marker."""
    return ".sDv"[labels.index(label) // len(METHOD_COLOURS) % 4]
