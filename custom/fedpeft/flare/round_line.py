"""The log lines for people who follow a run: one for each round, one for the end."""

from statistics import fmean
from typing import Any

from fedpeft.config.run import Run
from fedpeft.training.server.selection import scores_of

MARK = "fedpeft |"


def round_line(round_: int, run: Run, record: dict[str, Any]) -> str:
    """The line of a finished round.

    Args:
        round_: 0-based.
        run: the run.
        record: the round's record; "sites", "refused", "silent", "seconds" and "averaging" are read.
    """
    sites = record["sites"]
    scores = scores_of(run, sites)
    up, down = (sum(item[key] for item in sites.values()) for key in ("bytes_up", "bytes_down"))
    missing = "".join(f" | {word}: {', '.join(sorted(record[word]))}" for word in ("refused", "silent") if record[word])
    loss = fmean(item["loss"] for item in sites.values())
    return (
        f"{MARK} round {round_ + 1}/{run.federation.rounds} | {run.task.title} at its start {_means(scores)} | "
        f"loss {loss:.3f} | {_fit(record['averaging'])}up {_size(up)}, down {_size(down)} | "
        f"{record['seconds']:.1f} s{missing}"
    )


def final_line(rounds: int, run: Run, scores: dict[str, dict[str, float]], refused: dict[str, str]) -> str:
    """The line after the last round."""
    missing = f" | refused: {', '.join(sorted(refused))}" if refused else ""
    return f"{MARK} after {rounds} rounds | {run.task.title} {_means(scores)}{missing}"


def _fit(averaging: dict[str, dict[str, float | None]]) -> str:
    """The fit (1 - relative error) of the worst re-factored product to the sites' average; "" without products."""
    errors = {
        name: max((error for report in averaging.values() if (error := report[name]) is not None), default=None)
        for name in ("truncation_error", "factor_mean_error")
    }
    if errors["truncation_error"] is None:
        return ""
    mean = errors["factor_mean_error"]
    beside = "" if mean is None else f" (mean of factors {1 - mean:.2%})"
    return f"fit {1 - errors['truncation_error']:.2%}{beside} | "


def _means(scores: dict[str, dict[str, float]]) -> str:
    means = {site: fmean(values.values()) for site, values in sorted(scores.items()) if values}
    if not means:
        return "not measured"
    return f"{fmean(means.values()):.3f} ({', '.join(f'{site} {value:.3f}' for site, value in means.items())})"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
