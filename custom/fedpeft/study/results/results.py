"""Write a comparison's results: results.json, times.json, cases.csv, contrasts.csv, table.md and table.csv.

``results.json``: {"data", "split", "runs": [one for each method, rank and seed: {"label", "run": fields of the run,
"models": {model: {site: {the task's metric, "classes", "cases"}}}, "pooled": {setting: the metric and the task's other
measures of all sites' cases together}, "history": {model: {site: [[rounds, validation score], ...]}}, "traffic":
{"bytes_up", "bytes_down"}}], "summary": [one for each method and rank, see ``fedpeft.study.results.summary``]}. A
model is "initial", "local/<site>", "federated" or "centralized". Only classification has "pooled". With further
metrics, a model's site also has "metrics": {name: {"mean", "classes"}} and "one_mask_empty". The traffic is the encoded
size of what one site sends and receives in a round. Repeating a comparison gives the same results.json; only
``times.json``, which has the seconds, differs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpeft.common.files import write_json
from fedpeft.config.run import Run
from fedpeft.study.apply.evaluation import case_record, write_csv
from fedpeft.study.plan.experiments import FEDERATED, INITIAL, Experiment, Plan, label, times
from fedpeft.study.results.contrasts import write_contrasts
from fedpeft.study.results.history import history
from fedpeft.study.results.metrics import headings, means
from fedpeft.study.results.summary import summarise
from fedpeft.study.results.table import write_table
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import CaseScore, class_means, mean_score
from fedpeft.training.server.run_folder import RunFolder


def write_results(plan: Plan, scores: Mapping[Experiment, Sequence[CaseScore]]) -> dict[str, Any]:
    """Write results.json and the other files; return the content of results.json.

    Args:
        plan: the comparison's plan.
        scores: the scores of every experiment, in the order of the tables.
    """
    runs = dict.fromkeys(experiment.run for experiment in scores)
    entries = [
        _entry(run, plan, {experiment: scores[experiment] for experiment in scores if experiment.run == run})
        for run in runs
    ]
    results: dict[str, Any] = {
        "data": str(plan.data),
        "split": plan.split,
        "runs": entries,
        "summary": summarise(entries, scores, headings(next(iter(runs)), plan.scoring)),
    }
    write_json(plan.out / "results.json", results)
    write_json(plan.out / "times.json", {experiment.name: _times(experiment, plan) for experiment in scores})
    write_csv(
        plan.out / "cases.csv", [_case(experiment, item) for experiment, items in scores.items() for item in items]
    )
    write_table(results["summary"], plan.split, plan.out)
    write_contrasts(scores, plan.out)
    return results


def _times(experiment: Experiment, plan: Plan) -> dict[str, float]:
    """Seconds of the experiment's training, of its test and, on average, of a round, as far as they are known."""
    folder = experiment.folder(plan.out)
    if experiment.setting == INITIAL:
        return times(folder)
    return times(folder) | {"round": fmean(record["seconds"] for record in RunFolder(folder / "run").rounds())}


def _entry(run: Run, plan: Plan, scores: Mapping[Experiment, Sequence[CaseScore]]) -> dict[str, Any]:
    folders = {
        experiment: experiment.folder(plan.out) / "run" for experiment in scores if experiment.setting != INITIAL
    }
    return {
        "label": label(run),
        "run": run.to_dict(),
        "models": {experiment.model: per_site(items, run) for experiment, items in scores.items()},
        **_pooled(run, scores),
        "history": {experiment.model: history(folder) for experiment, folder in folders.items()},
        "traffic": next(
            (traffic(folder) for experiment, folder in folders.items() if experiment.setting == FEDERATED), {}
        ),
    }


def _pooled(run: Run, scores: Mapping[Experiment, Sequence[CaseScore]]) -> dict[str, Any]:
    """Measures of all sites' cases together, for tasks that have any; local models count at their own sites only."""
    together: dict[str, list[CaseScore]] = {}
    for experiment, items in scores.items():
        together.setdefault(experiment.setting, []).extend(item for item in items if experiment.site in ("", item.site))
    found = {setting: measured(items, run) for setting, items in together.items()}
    return {"pooled": found} if any(len(values) > 1 for values in found.values()) else {}


def measured(items: Sequence[CaseScore], run: Run) -> dict[str, Any]:
    """The task's metric and its other measures of a set of cases."""
    labels = list(run.label_table.values())
    return {run.task.metric: mean_score(items)} | task_of(run).measures(items, labels)


def per_site(items: Sequence[CaseScore], run: Run) -> dict[str, Any]:
    """Site -> a model's score there, its means per class, the number of cases, and the task's other measures."""
    by_site: dict[str, list[CaseScore]] = {}
    for item in items:
        by_site.setdefault(item.site, []).append(item)
    return {
        site: measured(mine, run)
        | {"classes": class_means(mine), "cases": len({item.case for item in mine})}
        | means(mine, run)
        for site, mine in by_site.items()
    }


def _case(experiment: Experiment, item: CaseScore) -> dict[str, Any]:
    run = experiment.run
    model = {
        "method": run.model.method,
        "rank": run.option("rank"),
        "seed": run.training.seed,
        "setting": experiment.setting,
        "trained_at": experiment.site,
    }
    return model | {"class" if key == "label" else key: value for key, value in case_record(item, run).items()}


def traffic(folder: Path) -> dict[str, float]:
    """Encoded bytes of a federated run's payloads, the mean over sites and rounds."""
    sites = [item for record in RunFolder(folder).rounds() for item in record["sites"].values()]
    return {key: fmean(item[key] for item in sites) for key in ("bytes_up", "bytes_down")}
