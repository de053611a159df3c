"""The chart of the score against the bytes that a round exchanges."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from fedpeft.study.plots.style import STYLES, Axes, Figure, Summary, compared, key, plt, scored, widen


def score_bytes(results: dict[str, Any]) -> Figure:
    """Plot a point for each method and setting; a line joins a method's points, and its name is beside the highest."""
    figure, axes = plt.subplots(figsize=(9, 5.5), constrained_layout=True)
    tops = []
    for item, volume in _spread(results["summary"]):
        points = {setting: item["settings"][setting]["average"] for setting in STYLES if setting in item["settings"]}
        axes.plot([volume] * len(points), list(points.values()), color="0.75", linewidth=1, zorder=1)
        for setting, value in points.items():
            colour, marker, _ = STYLES[setting]
            axes.plot(volume, value, marker, color=colour, markersize=8, zorder=2)
        tops.append((volume, max(points.values()), item["label"]))
    axes.set_xscale("log")
    volumes = [volume for volume, _, _ in tops]
    axes.set_xlim(min(volumes) / 2, max(volumes) * 3)
    axes.margins(y=0.12)
    widen(axes)
    axes.set(xlabel="MB a round and site, up + down, if federated", ylabel=f"mean {scored(results)} (Average)")
    _parameters(axes, results["summary"])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    if volumes != sorted(item["bytes_up"] + item["bytes_down"] for item in results["summary"]):
        axes.set_title("methods of nearly the same size stand side by side", fontsize=9)
    figure.legend(handles=key(compared(results["summary"])), loc="outside lower center", ncols=3, fontsize=9)
    _name(axes, tops)
    return figure


def _parameters(axes: Axes, summary: Summary) -> None:
    """Add an axis at the top with the number of parameters that take these bytes up and down."""
    bytes_each = fmean((item["bytes_up"] + item["bytes_down"]) / item["exchanged"] for item in summary)

    def over(x: Any) -> Any:
        return x / bytes_each

    def times(x: Any) -> Any:
        return x * bytes_each

    top = axes.secondary_xaxis("top", functions=(over, times))
    top.set_xlabel("about as many parameters a round, one way")


def _spread(summary: Summary) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the methods by bytes, with methods of nearly the same size moved apart by about a hundredth of the axis."""
    volumes = [item["bytes_up"] + item["bytes_down"] for item in summary]
    step, last = (6 * max(volumes) / min(volumes)) ** (1 / 55), 0.0
    for volume, item in sorted(zip(volumes, summary, strict=True), key=lambda pair: pair[0]):
        last = max(volume, last * step)
        yield item, last


def _name(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points, each at the first place where it hides no point and no other name."""
    figure = axes.figure
    figure.canvas.draw()
    dot = figure.dpi / 72
    taken = [
        Bbox.from_bounds(x - 5 * dot, y - 5 * dot, 10 * dot, 10 * dot)
        for line in axes.lines
        for x, y in axes.transData.transform(line.get_xydata())
    ]
    for x, y, text in sorted(points, key=lambda point: -point[1]):
        left, middle = axes.transData.transform((x, y))
        probe = axes.text(0, 0, text, fontsize=9)
        size = probe.get_window_extent()
        probe.remove()
        for across, up in _places(size.width / dot):
            box = Bbox.from_bounds(left + across * dot, middle + up * dot - size.height / 2, size.width, size.height)
            if not box.count_overlaps(taken) and box.x0 > axes.bbox.x0 and box.x1 < axes.bbox.x1:
                break
        taken.append(box)
        axes.annotate(
            text,
            (x, y),
            (across, up),
            textcoords="offset points",
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
        )


def _places(width: float) -> Iterator[tuple[float, float]]:
    """Yield offsets for a name of some width, both in typographic points: near before far, right before left."""
    for height in (0, *(sign * step for step in range(11, 100, 11) for sign in (1, -1))):
        for across in (9, 24, 45):
            yield from ((across, height), (-across - width, height))
