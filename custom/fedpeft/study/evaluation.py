"""A run's model on a folder of sites: Dice per case, site and class."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpeft.data.datalist import read_sites
from fedpeft.train.evaluate import CaseScore, class_means, mean_dice, score
from fedpeft.train.files import replace, write_json
from fedpeft.train.run_folder import RunFolder
from fedpeft.train.site import read_volumes


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model.

    Attributes:
        run: the run folder.
        which: its parcel.
        normalised: site -> whose statistics normalised its volumes, "site" or "volume".
        scores: Dice per case and class.
    """

    run: str
    which: str
    normalised: dict[str, str]
    scores: list[CaseScore]

    def of(self, site: str) -> list[CaseScore]:
        """The scores of one site."""
        return [item for item in self.scores if item.site == site]

    def to_dict(self) -> dict[str, Any]:
        """Means and per-case values, ready for JSON."""
        sites = {site: {"dice": mean_dice(self.of(site)), "classes": class_means(self.of(site)),
                        "cases": len({item.case for item in self.of(site)}), "normalised_by": normalised}
                 for site, normalised in self.normalised.items()}
        return {
            "run": self.run, "parcel": self.which, "dice": fmean(item["dice"] for item in sites.values()),
            "sites": sites, "cases": [item.to_dict() for item in self.scores],
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for a terminal: a row a site and one for their mean."""
        result = self.to_dict()
        labels = list(next(iter(result["sites"].values()))["classes"])
        rows = [
            [site, str(item["cases"]), *(f"{item['classes'][label]:.3f}" for label in labels), f"{item['dice']:.3f}"]
            for site, item in result["sites"].items()
        ]
        means = [fmean(item["classes"][label] for item in result["sites"].values()) for label in labels]
        rows.append(["mean of sites", "", *(f"{value:.3f}" for value in means), f"{result['dice']:.3f}"])
        return ["site", "cases", *labels, "mean"], rows


def evaluate(folder: RunFolder, data: Path, split: str, checkpoint: Path, which: str) -> Evaluation:
    """Score a finished run's model on every site of a folder.

    Raises:
        ValueError: the data's classes are not the run's, a site has no labelled case in the split, or a file is faulty.
    """
    run, model = folder.run, folder.model(checkpoint, which)
    scores, normalised = [], {}
    for site in read_sites(data):
        if site.classes != run.classes or (run.labels and site.labels != run.label_table):
            raise ValueError(f"site {site.name} has the labels {site.labels}, the run has {run.label_table}")
        site.cases(split)
        volumes = read_volumes(site, split, folder.preprocessing)
        normalised[site.name] = volumes[0][1].normalised
        scores += score(model, volumes, run, site.labels, (site.name, split))
    return Evaluation(str(folder.path), which, normalised, scores)


def write_evaluation(result: Evaluation, out: Path) -> Path:
    """Write evaluation.json and evaluation.csv; returns the JSON file."""
    write_json(out / "evaluation.json", result.to_dict())
    write_csv(out / "evaluation.csv", [item.to_dict() for item in result.scores])
    return out / "evaluation.json"


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of one shape as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace(path, lambda file: file.write_text(text.getvalue()))
