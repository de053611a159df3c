"""Scores and summaries made by hand."""

from dataclasses import replace

from fedpeft.study.plan.experiments import Experiment, label
from fedpeft.study.results.metrics import headings
from fedpeft.study.results.results import per_site
from fedpeft.study.results.summary import summarise
from fedpeft.tasks.scores import CaseScore, Scoring

SITES = ("north", "south")
# Setting, trained at -> Dice of the two cases at north and at south; the second class has half of it.
DICE = {
    ("initial", ""): ((0.0, 0.0), (0.1, 0.1)),
    ("local", "north"): ((0.6, 0.4), (0.2, 0.2)),
    ("local", "south"): ((0.1, 0.1), (0.8, 0.4)),
    ("federated", ""): ((0.8, 0.6), (0.6, 0.4)),
    ("centralized", ""): ((0.9, 0.5), (0.0, 0.0)),
}


def scores_of(run, factor=1.0, settings=("initial", "local", "federated", "centralized")):
    """Experiment -> its scores, all times a factor."""
    return {
        Experiment(run, setting, at): [
            CaseScore(site, "test", f"case-{index}", name, factor * share * value)
            for site, values in zip(SITES, dice, strict=True)
            for index, value in enumerate(values)
            for name, share in (("organ", 1.0), ("lesion", 0.5))
        ]
        for (setting, at), dice in DICE.items()
        if setting in settings
    }


def with_distances(scores):
    """The same scores with an HD95 of 100 (1 - Dice) mm; where Dice is 0, as if the prediction were empty."""
    return {
        experiment: [
            replace(item, others={"hd95": 100 * (1 - item.value)}, empty="" if item.value else "prediction")
            for item in items
        ]
        for experiment, items in scores.items()
    }


def summary_of(*parts, traffic=None, scoring=None):
    """The summary of some runs' scores."""
    scores = {experiment: items for part in parts for experiment, items in part.items()}
    entries = []
    for part in parts:
        run = next(iter(part)).run
        entries.append(
            {
                "label": label(run),
                "run": run.to_dict(),
                "traffic": traffic or {},
                "models": {experiment.model: per_site(items, experiment.run) for experiment, items in part.items()},
            }
        )
    return summarise(entries, scores, headings(run, scoring) if scoring else None)


HD95 = Scoring(("hd95",))
