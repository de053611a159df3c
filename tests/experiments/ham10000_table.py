"""The tables and the plot of the HAM10000 benchmark, from the scores of its models."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from ham10000_numbers import Columns, Experiment, Interval, columns_of, interval, slope

from fedpeft.common.files import replace, write_json
from fedpeft.study.plots.style import COLOURS, plt
from fedpeft.tasks.measures import TITLES, measures
from fedpeft.tasks.scores import mean_score

POOLED, SITES = "balanced_accuracy", "mean_of_sites"
HEADINGS = {POOLED: "Balanced accuracy", SITES: "Mean of sites"} | {
    name: title for name, title in TITLES.items() if name != "accuracy"
}


def write_tables(
    experiments: Sequence[Experiment],
    exchanged: Mapping[str, int],
    lesions: Mapping[str, str],
    labels: Sequence[str],
    out: Path,
) -> dict[str, Any]:
    """Write table.md, table.csv, table.json and table.png; returns what the JSON file holds.

    Args:
        experiments: of any part of the benchmark.
        exchanged: method -> parameters that a site sends in a round.
        lesions: case -> lesion.
        labels: names of the classes in the order of the probabilities.
        out: folder.
    """
    lines = [_line(experiment, exchanged, labels) for experiment in experiments]
    columns = columns_of([experiment for experiment in experiments if experiment.setting == "federated"], lesions)
    found = {
        "experiments": lines,
        "slopes": [
            {"partition": partition, "start": start, "methods": list(values)} | vars(slope(values, exchanged))
            for (partition, start), values in columns.items()
        ],
        "medical_minus_generic": [line for partition in _partitions(columns) for line in _gains(partition, columns)],
    }
    write_json(out / "table.json", found)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    replace(out / "table.csv", lambda file: file.write_text(text.getvalue()))
    replace(out / "table.md", lambda file: file.write_text(_markdown(found)))
    replace(out / "table.png", lambda file: _draw(columns, exchanged, file))
    return found


def _gains(partition: str, columns: Columns) -> list[dict[str, Any]]:
    """Medical minus generic of each method, and of their mean."""
    if any((partition, start) not in columns for start in ("medical", "generic")):
        return []
    medical, generic = columns[partition, "medical"], columns[partition, "generic"]
    gains = {name: medical[name] - generic[name] for name in medical if name in generic}
    gains["mean"] = np.mean(list(gains.values()), axis=0)
    return [{"partition": partition, "method": name} | vars(interval(values)) for name, values in gains.items()]


def _line(experiment: Experiment, exchanged: Mapping[str, int], labels: Sequence[str]) -> dict[str, Any]:
    sites = {item.site for item in experiment.scores}
    own = [mean_score(item for item in experiment.scores if item.site == site) for site in sorted(sites)]
    others = measures(experiment.scores, labels)
    return {
        "partition": experiment.partition,
        "start": experiment.start,
        "method": experiment.method,
        "setting": experiment.setting,
        "seed": experiment.seed,
        "exchanged": exchanged[experiment.method],
        "cases": len(experiment.scores),
        POOLED: mean_score(experiment.scores),
        SITES: fmean(own),
        **{name: others[name] for name in HEADINGS if name in others},
    }


def _partitions(columns: Columns) -> list[str]:
    return list(dict.fromkeys(partition for partition, _ in columns))


def _markdown(found: Mapping[str, Any]) -> str:
    keys = ("partition", "start", "method", "setting")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in found["experiments"]:
        groups.setdefault(tuple(line[key] for key in keys), []).append(line)
    rows = [
        [*key, f"{lines[0]['exchanged']:,}", str(len(lines)), *(_mean(lines, name) for name in HEADINGS)]
        for key, lines in groups.items()
    ]
    slopes = [[item["partition"], item["start"], str(len(item["methods"])), _shown(item)] for item in found["slopes"]]
    gains = [[item["partition"], item["method"], _shown(item)] for item in found["medical_minus_generic"]]
    return "\n".join(
        (
            _overview(found["experiments"]),
            _table([*keys, "exchanged", "seeds", *HEADINGS.values()], rows),
            _table(["partition", "start", "methods", "per decade of exchanged parameters (95 %)"], slopes),
            _table(["partition", "method", "medical - generic (95 %)"], gains),
        )
    )


def _overview(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row a method, a column a partition and start: the balanced accuracy, the mean over seeds."""
    groups: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for line in lines:
        column = groups.setdefault((line["partition"], line["start"]), {})
        column.setdefault(line["method"], []).append(line)
    exchanged = {line["method"]: line["exchanged"] for line in lines}
    rows = [
        [name, f"{size:,}", *(_mean(column[name], POOLED) if name in column else "" for column in groups.values())]
        for name, size in sorted(exchanged.items(), key=lambda item: item[1])
    ]
    return _table(["method", "exchanged", *(", ".join(key) for key in groups)], rows)


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    return f"{fmean(line[name] for line in lines):.3f}"


def _shown(item: Mapping[str, Any]) -> str:
    return str(Interval(item["value"], item["low"], item["high"]))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _draw(columns: Columns, exchanged: Mapping[str, int], file: Path) -> None:
    """Balanced accuracy against exchanged parameters, a panel a partition, a line a start."""
    partitions = _partitions(columns)
    figure, panels = plt.subplots(
        1, len(partitions), figsize=(4.5 * len(partitions), 4.5), sharey=True, squeeze=False, constrained_layout=True
    )
    starts = list(dict.fromkeys(start for _, start in columns))
    for axes, partition in zip(panels[0], partitions, strict=True):
        for (place, start), column in columns.items():
            if place != partition:
                continue
            names = sorted(column, key=exchanged.__getitem__)
            values = [interval(column[name]) for name in names]
            x, y = np.array([exchanged[name] for name in names]), np.array([item.value for item in values])
            spread = [y - [item.low for item in values], [item.high for item in values] - y]
            colour = COLOURS[starts.index(start)]
            axes.errorbar(x, y, np.abs(spread), fmt="o-", color=colour, markersize=4, elinewidth=0.7, label=start)
        axes.set(xscale="log", title=partition, xlabel="parameters that a site sends in a round")
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("balanced accuracy of all test images")
    panels[0, 0].legend(fontsize=9)
    figure.savefig(file, dpi=110)
    plt.close(figure)
