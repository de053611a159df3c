"""Score a run's model on a folder of sites, per case, site and class."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpeft.common.files import replace, write_json
from fedpeft.config.run import Run
from fedpeft.data.datalist import read_sites
from fedpeft.study.apply.predictions import PredictionFolder
from fedpeft.study.results.metrics import by_metric, class_intervals, direction, headings, interval, one_empty
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import PLAIN, CaseScore, Scoring, class_means, mean_score
from fedpeft.training.client.labels import check_labels
from fedpeft.training.server.run_folder import RunFolder


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model.

    Attributes:
        folder: path of the run folder.
        run: the run.
        which: file of the model, the last or the best one.
        normalised: site -> what normalised its volumes, "site", "volume" or "constants"; empty for images.
        scores: the scores per case and class.
        scoring: the further metrics of the scores.
        predictions: the folder of every case's prediction; None if they were not kept.
    """

    folder: str
    run: Run
    which: str
    normalised: dict[str, str]
    scores: list[CaseScore]
    scoring: Scoring = PLAIN
    predictions: PredictionFolder | None = None

    def of(self, site: str) -> list[CaseScore]:
        """The scores of one site."""
        return [item for item in self.scores if item.site == site]

    def to_dict(self) -> dict[str, Any]:
        """Means and per-case values, ready for JSON; with further metrics, also the intervals of all metrics' means."""
        metric = self.run.task.metric
        found = {site: self._site(site) for site in dict.fromkeys(item.site for item in self.scores)}
        pooled = task_of(self.run).measures(self.scores, list(self.run.label_table.values()))
        return {
            "run": self.folder,
            "payload": self.which,
            **({"predictions": str(self.predictions.path)} if self.predictions else {}),
            metric: fmean(item[metric] for item in found.values()),
            **({"pooled": {metric: mean_score(self.scores)} | pooled} if pooled else {}),
            **self._metrics(),
            "sites": found,
            "cases": self.cases(),
        }

    def _site(self, site: str) -> dict[str, Any]:
        scores, run = self.of(site), self.run
        normalised = {"normalised_by": self.normalised[site]} if site in self.normalised else {}
        return {
            run.task.metric: mean_score(scores),
            "classes": class_means(scores),
            "cases": len({item.case for item in scores}),
            **normalised,
            **self._site_metrics(scores),
        } | task_of(run).measures(scores, list(run.label_table.values()))

    def _metrics(self) -> dict[str, Any]:
        """Every metric's heading, mean over sites and interval; empty without further metrics."""
        if not self.scoring.metrics:
            return {}
        known, values = headings(self.run, self.scoring), by_metric(self.scores, self.run)
        found = {name: known[name] | interval(items) for name, items in values.items()}
        return {"metrics": found, "one_mask_empty": one_empty(self.scores)}

    def _site_metrics(self, scores: list[CaseScore]) -> dict[str, Any]:
        """Every metric's mean at a site and of each class there, with intervals; empty without further metrics."""
        if not self.scoring.metrics:
            return {}
        values = by_metric(scores, self.run)
        found = {name: interval(items) | {"classes": class_intervals(items)} for name, items in values.items()}
        return {"metrics": found, "one_mask_empty": one_empty(scores)}

    def cases(self) -> list[dict[str, Any]]:
        """One record for each case and class."""
        return [case_record(item, self.run) for item in self.scores]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and lines of a table: a line for each site, and one for their mean."""
        result, metric = self.to_dict(), self.run.task.metric
        labels = list(dict.fromkeys(item.label for item in self.scores))
        lines = [
            [site, str(item["cases"]), *(_shown(item["classes"].get(label)) for label in labels), _shown(item[metric])]
            for site, item in result["sites"].items()
        ]
        means = _class_means([item["classes"] for item in result["sites"].values()], labels)
        lines.append(["mean of sites", "", *means, _shown(result[metric])])
        return ["site", "cases", *labels, "mean"], lines

    def metric_tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, headings and lines of a table for each metric, with intervals; empty without further metrics."""
        result = self.to_dict()
        labels = list(dict.fromkeys(item.label for item in self.scores))
        columns = ["site", "cases", *labels, "mean", "95 % interval"]
        tables = []
        for name, overall in result.get("metrics", {}).items():
            lines, of_sites = [], []
            for site, item in result["sites"].items():
                values = item["metrics"][name]
                of_sites.append({label: found["mean"] for label, found in values["classes"].items()})
                line = [site, str(item["cases"]), *_class_means(of_sites[-1:], labels)]
                lines.append([*line, _shown(values["mean"]), _spread(values, item["cases"])])
            most = max(item["cases"] for item in result["sites"].values())
            line = ["mean of sites", "", *_class_means(of_sites, labels)]
            lines.append([*line, _shown(overall["mean"]), _spread(overall, most)])
            tables.append((direction(overall), columns, lines))
        return tables


def _class_means(of_sites: Sequence[Mapping[str, float]], labels: Sequence[str]) -> list[str]:
    """Each class's mean over the sites that have it; "" if none has."""
    found = [[values[label] for values in of_sites if label in values] for label in labels]
    return [_shown(fmean(values) if values else None) for values in found]


def _spread(values: dict[str, Any], cases: int) -> str:
    """An interval of the scores of as many cases."""
    # Resampling a single case gives the same case again.
    return f"{values['low']:.3f} to {values['high']:.3f}" if cases > 1 else "unknown: one case"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def case_record(item: CaseScore, run: Run) -> dict[str, Any]:
    """The record of one case and class, with the probabilities of all classes if the task has them."""
    record = {
        "site": item.site,
        "split": item.split,
        "case": item.case,
        "label": item.label,
        run.task.of_case: item.value,
        **item.others,
        **({"empty": item.empty} if item.others else {}),
    }
    names = run.label_table.values() if item.probabilities else ()
    return record | {f"p {name}": round(value, 6) for name, value in zip(names, item.probabilities, strict=True)}


def evaluate(
    folder: RunFolder,
    data: Path,
    split: str,
    checkpoint: Path | None,
    which: str,
    scoring: Scoring = PLAIN,
    predictions: Path | None = None,
) -> Evaluation:
    """Score a finished run's model on every site of a folder.

    Args:
        folder: the run folder.
        data: folder of sites.
        split: the split whose cases are scored.
        checkpoint: the weights that the run started from; None if it started from random ones.
        which: file of the model, ``GLOBAL`` or ``BEST``.
        scoring: further metrics, from the ``scoring`` of the run's task.
        predictions: folder that keeps every case's prediction, see ``PredictionFolder``; None to keep none.

    Raises:
        ValueError: the data's classes are not the run's, a site has no labelled case in the split, a file is faulty, or
            predictions cannot be kept there.
    """
    sites, kept = read_sites(data), None
    if predictions is not None:
        kept = PredictionFolder(predictions, folder.run)
        kept.refuse_inputs(sites, split)
    run, model, task = folder.run, folder.model(checkpoint, which), task_of(folder.run)
    scores, normalised = [], {}
    for site in sites:
        check_labels(run, site)
        site.cases(split)
        cases = task.read(run, site, split, folder.preprocessing)
        if (scope := task.normalised_by(cases)) is not None:
            normalised[site.name] = scope
        each = scoring if kept is None else dataclasses.replace(scoring, keep=kept.keeper(site.name))
        scores += task.score(model, cases, run, site.labels, (site.name, split), scoring=each)
    return Evaluation(str(folder.path), run, which, normalised, scores, scoring, kept)


def write_evaluation(result: Evaluation, out: Path) -> Path:
    """Write evaluation.json and evaluation.csv; return the JSON file."""
    write_json(out / "evaluation.json", result.to_dict())
    write_csv(out / "evaluation.csv", result.cases())
    return out / "evaluation.json"


def write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    """Write records with the same keys as CSV; there must be at least one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    replace(path, lambda file: file.write_text(text.getvalue()))
