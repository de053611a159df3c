"""The table of a comparison, in the FLAP-SAM paper's form: a block for each method, a line for each setting."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedpeft.common.files import replace
from fedpeft.config.tasks import TASKS
from fedpeft.study.plan.experiments import FEDERATED, INITIAL, LOCAL
from fedpeft.study.results.bootstrap import RESAMPLES
from fedpeft.study.results.metric_table import metric_table
from fedpeft.study.results.table_form import TITLES, Table, signed
from fedpeft.tasks.registry import find_task

COLUMNS = (
    "label",
    "method",
    "title",
    "rank",
    "seeds",
    "setting",
    "average",
    "sd",
    "low",
    "high",
    "trainable",
    "total",
    "exchanged",
    "bytes_up",
    "bytes_down",
)


def write_table(summary: Sequence[dict[str, Any]], split: str, out: Path) -> None:
    """Write table.md for people, and table.csv with plain numbers and a line for every setting of every method.

    With further metrics, table.md has a second table, and table.csv the same lines for each metric.
    """
    tables = [found for found in (table(summary, split), metric_table(summary)) if found]
    replace(out / "table.md", lambda file: file.write_text("\n".join(found.markdown() for found in tables)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    sites, measures = _sites(summary), list(_measures(summary))
    pooled = [f"pooled_{name}" for name in measures]
    metric = ["metric"] if "metrics" in summary[0] else []
    writer.writerow([*COLUMNS[:6], *metric, *sites, *COLUMNS[6:10], *pooled, *COLUMNS[10:]])
    writer.writerows(line for item in summary for line in _csv_lines(item, sites, measures))
    replace(out / "table.csv", lambda file: file.write_text(text.getvalue()))


def table(summary: Sequence[dict[str, Any]], split: str) -> Table:
    """Make the table for people.

    Args:
        summary: "summary" of results.json.
        split: the split whose cases were tested.
    """
    once = ["trainable / total", "up + down a round"]
    measures = _measures(summary)
    columns = ["method", "setting", *_sites(summary), "Average", *measures.values(), *once]
    blocks = [_initial(summary, list(measures)), *(_block(item, list(measures)) for item in summary)]
    return Table(columns, blocks, len(once), list(map(_size, summary)), list(_notes(summary, split)))


def _measures(summary: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Measure of all cases together -> heading; empty for a task without such measures."""
    pooled = summary[0]["settings"][INITIAL].get("pooled")
    task = find_task(summary[0]["task"])
    return {task.entry.metric: "Pooled", **task.measure_titles} if pooled else {}


def _sites(summary: Sequence[dict[str, Any]]) -> list[str]:
    return list(summary[0]["settings"][INITIAL]["sites"])


def _initial(summary: Sequence[dict[str, Any]], measures: Sequence[str]) -> list[list[str]]:
    """The lines of the initial models, one for all methods that start from the same model."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for item in summary:
        shared.setdefault(tuple(_scores(item["settings"][INITIAL], measures)), []).append(item["label"])
    every = len(shared) == 1 and len(summary) > 1
    return [
        ["all" if every else ", ".join(labels), TITLES[INITIAL], *scores, "", ""] for scores, labels in shared.items()
    ]


def _block(item: dict[str, Any], measures: Sequence[str]) -> list[list[str]]:
    lines, rest = [], [""] * (len(measures) + 2)
    for setting, values in item["settings"].items():
        if setting != INITIAL:
            traffic = _traffic(item["bytes_up"], item["bytes_down"]) if setting == FEDERATED else ""
            lines.append([TITLES[setting], *_scores(values, measures), "", traffic])
    if gain := item["gain"]:
        sites = [signed(value) for value in gain["sites"].values()]
        lines.append(["Gain over local", *sites, signed(gain["average"]), *rest])
        # Resampling a single case at each site gives the same case again.
        known = gain["low"] < gain["high"]
        interval = f"{signed(gain['low'])} to {signed(gain['high'])}" if known else "unknown: one case a site"
        lines.append(["95 % interval", *[""] * len(sites), interval, *rest])
    if ratio := item["ratio"]:
        values = [*ratio["sites"].values(), ratio["average"]]
        lines.append(["Fed. / centralized", *("-" if v is None else f"{v:.3f}" for v in values), *rest])
    lines[0][-2] = f"{_millions(item['trainable'])} / {_millions(item['total'])} ({_share(item)})"
    return [[item["label"] if index == 0 else "", *line] for index, line in enumerate(lines)]


def _scores(values: dict[str, Any], measures: Sequence[str]) -> list[str]:
    spread = "" if values["sd"] is None else f" ± {values['sd']:.4f}"
    pooled = [values.get("pooled", {}).get(name) for name in measures]
    return [
        *(f"{value:.4f}" for value in values["sites"].values()),
        f"{values['average']:.4f}{spread}",
        *("" if value is None else f"{value:.4f}" for value in pooled),
    ]


def _size(item: dict[str, Any]) -> str:
    return (
        f"{item['label']}: {_millions(item['trainable'])} of {_millions(item['total'])} parameters train "
        f"({_share(item)}); a site sends + receives {_traffic(item['bytes_up'], item['bytes_down'])} a round."
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}M"


def _share(item: dict[str, Any]) -> str:
    return f"{item['trainable'] / item['total']:.1%}"


def _traffic(up: float, down: float) -> str:
    size, unit = (1e6, "MB") if max(up, down) >= 1e6 else (1e3, "kB")
    return f"{up / size:.4g} + {down / size:.4g} {unit}"


def _notes(summary: Sequence[dict[str, Any]], split: str) -> Iterator[str]:
    seeds = summary[0]["seeds"]
    many = (
        f"mean of seeds {', '.join(map(str, seeds))}, ± their standard deviation"
        if len(seeds) > 1
        else (f"seed {seeds[0]}")
    )
    title = TASKS[summary[0]["task"]].title
    yield f"{title[0].upper()}{title[1:]} of {split} cases, {many}. Average: mean of the sites."
    if _measures(summary):
        yield "Pooled, and the measures beside it: of all sites' cases together; of local models each on its own cases."
    settings = {setting for item in summary for setting in item["settings"]}
    if LOCAL in settings:
        yield "Local: each site's own model on its own cases; everywhere: on every site's, the mean of these."
    if {LOCAL, FEDERATED} <= settings:
        yield f"Gain: federated minus local. Interval: of the average, by {RESAMPLES:,} resamples of each site's cases."


def _csv_lines(item: dict[str, Any], sites: Sequence[str], measures: Sequence[str]) -> Iterator[list[Any]]:
    """One method's lines of table.csv, those of further metrics after those of the task's own."""
    head = [item["label"], item["method"], item["title"], item["rank"], " ".join(map(str, item["seeds"]))]
    tail = [item[key] for key in COLUMNS[10:]]
    for setting, metric, values in _settings(item):
        pooled = [values.get("pooled", {}).get(name) for name in measures]
        numbers = [*(values["sites"][site] for site in sites), *(values.get(key) for key in COLUMNS[6:10]), *pooled]
        texts = ("" if value is None else f"{round(value, 6) + 0.0:.6f}" for value in numbers)
        yield [*head, setting, *metric, *texts, *tail]


def _settings(item: dict[str, Any]) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Setting, name of the metric if there are several, and values of one method's lines of table.csv."""
    own = TASKS[item["task"]].metric
    metrics = item.get("metrics", {})
    contrasts = {key: item[key] for key in ("gain", "ratio") if item[key]}
    for setting, values in (item["settings"] | contrasts).items():
        spread = metrics[own]["settings"].get(setting, {}) if metrics else {}
        yield setting, [own] if metrics else [], values | {key: spread[key] for key in ("low", "high") if key in spread}
    for name, metric in metrics.items():
        if name != own:
            change = metric["federated_minus_local"]
            lines = metric["settings"] | ({"federated_minus_local": change} if change else {})
            yield from ((setting, [name], values) for setting, values in lines.items())
