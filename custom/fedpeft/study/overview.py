"""The picture of a comparison: which models are shown, and where they are."""

from pathlib import Path
from typing import Any

from torch.nn import Module

from fedpeft.data.datalist import read_sites
from fedpeft.spec.run import Run
from fedpeft.study.cells import Cell, Plan
from fedpeft.study.confusions import draw_confusions
from fedpeft.study.plots import draw
from fedpeft.train.run_folder import RunFolder
from fedpeft.train.site import usable


def draw_first(plan: Plan, run: Run, settings: list[str], results: dict[str, Any]) -> Path:
    """Draw compare.png of the first run: of segmentation masks, of classification which class is taken for which."""
    path = plan.out / "compare.png"
    if "pooled" in results["runs"][0]:
        return draw_confusions(results, run, path)
    sites = read_sites(plan.data)
    models: dict[str, dict[str, Module]] = {}
    for setting in settings:
        title = "own model" if setting == "local" else setting
        cells = {site.name: Cell(run, setting, site.name if setting == "local" else "") for site in sites}
        models[title] = {site: _model(plan, cell) for site, cell in cells.items()}
    return draw(results, sites, models, run, path, plan.split)


def _model(plan: Plan, cell: Cell) -> Module:
    return RunFolder(cell.folder(plan.out) / "run").model(plan.checkpoint).to(usable(plan.device))
