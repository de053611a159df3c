"""The table of a comparison's metrics: a block for each method, a line for each setting, a column for each metric."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpeft.study.results.bootstrap import RESAMPLES
from fedpeft.study.results.metrics import direction
from fedpeft.study.results.table_form import TITLES, Table, signed
from fedpeft.tasks.mask_metrics import EMPTY_RULE

MINUS = "Federated minus local"


def metric_table(summary: Sequence[Mapping[str, Any]]) -> Table | None:
    """The table of averages over sites with their intervals; None if only the task's own score was computed.

    Args:
        summary: "summary" of results.json.
    """
    if "metrics" not in summary[0]:
        return None
    headings = [direction(heading) for heading in summary[0]["metrics"].values()]
    columns = ["method", "setting", *headings, "one mask empty"]
    notes = [
        f"Averages of the sites, in parentheses their 95 % interval by {RESAMPLES:,} resamples of each site's cases.",
        EMPTY_RULE + " The last column counts the latter among the values of all cases, classes and seeds.",
    ]
    return Table(columns, [_block(item) for item in summary], 0, [], notes)


def _block(item: Mapping[str, Any]) -> list[list[str]]:
    metrics = item["metrics"].values()
    lines = []
    for setting, counts in item["one_mask_empty"].items():
        values = [_with_interval(metric["settings"][setting], metric["unit"], _unsigned) for metric in metrics]
        lines.append([TITLES[setting], *values, f"{counts['count']} of {counts['of']}"])
    if item["gain"]:
        changes = [_with_interval(metric["federated_minus_local"], metric["unit"], signed) for metric in metrics]
        lines.append([MINUS, *changes, ""])
    return [[item["label"] if index == 0 else "", *line] for index, line in enumerate(lines)]


def _unsigned(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _with_interval(values: Mapping[str, Any], unit: str, shown: Callable[[float, int], str]) -> str:
    average, low, high = (shown(values[key], 2 if unit else 4) for key in ("average", "low", "high"))
    # Resampling a single case at each site gives the same case again.
    return f"{average} ({low} to {high})" if values["low"] < values["high"] else average
