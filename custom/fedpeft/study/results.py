"""A comparison's outcome: results.json, cases.csv, and the table as Markdown and CSV.

``results.json``: {"data", "runs": [{"run": fields of the run, "models": {model: {site: {"dice", "classes", "cases"}}},
"history": {model: [[rounds, validation Dice], ...]}, "seconds": {model: training time}}]}. A model is "before" (the
initial one), "local/<site>", "federated" or "centralized".
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpeft.spec.run import Run
from fedpeft.study.evaluation import write_csv
from fedpeft.train.evaluate import CaseScore, class_means, mean_dice
from fedpeft.train.files import replace, write_json
from fedpeft.train.run_folder import METRICS, RunFolder

Key = tuple[str, int, str, str]


def write_results(out: Path, data: Path, runs: list[Run], scores: dict[Key, list[CaseScore]]) -> dict[str, Any]:
    """Write results.json, cases.csv, table.md and table.csv into ``out``; returns what results.json holds."""
    entries, rows = [], []
    for run in runs:
        mine = {key: items for key, items in scores.items() if key[:2] == (run.method, run.seed)}
        models = {"/".join(filter(None, key[2:])): items for key, items in mine.items()}
        folders = {model: out / run.method / f"seed-{run.seed}" / model / "run" for model in models}
        entries.append({
            "run": run.to_dict(),
            "models": {model: _per_site(items) for model, items in models.items()},
            "history": {model: history(folder) for model, folder in folders.items() if folder.is_dir()},
            "traffic": traffic(folders["federated"]) if "federated" in folders else {},
        })
        head = {"method": run.method, "seed": run.seed}
        rows += [head | {"model": model} | item.to_dict() for model, items in models.items() for item in items]
    results = {"data": str(data), "runs": entries}
    write_json(out / "results.json", results)
    write_csv(out / "cases.csv", rows)
    columns, table = summary(results)
    write_csv(out / "table.csv", [dict(zip(columns, row, strict=True)) for row in table])
    replace(out / "table.md", lambda file: file.write_text(markdown(columns, table)))
    return results


def _per_site(items: list[CaseScore]) -> dict[str, Any]:
    by_site: dict[str, list[CaseScore]] = {}
    for item in items:
        by_site.setdefault(item.site, []).append(item)
    return {
        site: {"dice": mean_dice(mine), "classes": class_means(mine), "cases": len({item.case for item in mine})}
        for site, mine in by_site.items()
    }


def history(folder: Path) -> list[list[float]]:
    """[rounds, mean validation Dice over classes, then sites] of a run folder, in the order of the rounds."""
    values: dict[int, dict[str, list[float]]] = {}
    with (folder / METRICS).open() as stream:
        for row in csv.DictReader(stream):
            values.setdefault(int(row["rounds"]), {}).setdefault(row["site"], []).append(float(row["dice"]))
    return [[rounds, fmean(map(fmean, sites.values()))] for rounds, sites in sorted(values.items())]


def traffic(folder: Path) -> dict[str, float]:
    """Bytes of a federated run's payloads as encoded, per site and round, and the seconds of a round."""
    records = RunFolder(folder).rounds()
    sites = [item for record in records for item in record["sites"].values()]
    return {
        "bytes_up": fmean(item["bytes_up"] for item in sites),
        "bytes_down": fmean(item["bytes_down"] for item in sites),
        "round_seconds": fmean(record["seconds"] for record in records),
    }


def summary(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table: for each method and site mean test Dice over the seeds, and the sites' mean.

    "own model" is the one that a site trained alone: at home on its own test cases, everywhere on all sites' cases
    (the mean over sites).
    """
    columns: list[str] = []
    rows = []
    for method in dict.fromkeys(entry["run"]["method"] for entry in results["runs"]):
        entries = [_columns(entry["models"]) for entry in results["runs"] if entry["run"]["method"] == method]
        sites = list(next(iter(entries[0].values())))
        columns = list(entries[0])
        values = {name: {site: fmean(entry[name][site] for entry in entries) for site in sites} for name in columns}
        rows += [[method, site, *(f"{values[name][site]:.3f}" for name in columns)] for site in sites]
        rows.append([method, "mean of sites", *(f"{fmean(values[name].values()):.3f}" for name in columns)])
    return ["method", "site", *columns], rows


def _columns(models: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Column -> site -> Dice of one run."""
    sites = list(models["before"])
    own = {site: models.get(f"local/{site}") for site in sites}
    columns = {"before": {site: models["before"][site]["dice"] for site in sites}}
    if all(own.values()):
        columns["own model, at home"] = {site: own[site][site]["dice"] for site in sites}
        columns["own model, all sites"] = {
            site: fmean(item["dice"] for item in own[site].values()) for site in sites
        }
    for setting in ("federated", "centralized"):
        if setting in models:
            columns[setting] = {site: models[setting][site]["dice"] for site in sites}
    return columns


def markdown(columns: Iterable[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    columns = list(columns)
    lines = [columns, ["---"] * 2 + ["---:"] * (len(columns) - 2), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
