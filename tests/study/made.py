"""Scores and summaries made by hand."""

from fedpeft.study.cells import Cell, label
from fedpeft.study.results import per_site
from fedpeft.study.summary import summarise
from fedpeft.train.scores import CaseScore

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
    """Cell -> its scores, all times a factor."""
    return {
        Cell(run, setting, at): [
            CaseScore(site, "test", f"case-{index}", name, factor * share * value)
            for site, values in zip(SITES, dice, strict=True)
            for index, value in enumerate(values)
            for name, share in (("organ", 1.0), ("lesion", 0.5))
        ]
        for (setting, at), dice in DICE.items() if setting in settings
    }


def summary_of(*parts, traffic=None):
    """The summary of some runs' scores."""
    scores = {cell: items for part in parts for cell, items in part.items()}
    entries = []
    for part in parts:
        run = next(iter(part)).run
        entries.append({
            "label": label(run), "run": run.to_dict(), "traffic": traffic or {},
            "models": {cell.model: per_site(items, cell.run) for cell, items in part.items()},
        })
    return summarise(entries, scores)
