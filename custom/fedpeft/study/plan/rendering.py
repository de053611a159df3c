"""Render a job's folder from a shipped job, with changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpeft.config.gpus import Gpus
from fedpeft.config.jobs import JOBS
from fedpeft.config.presets import RECIPES, Recipe
from fedpeft.config.run import RunConfig
from fedpeft.flare.rendering import write
from fedpeft.study.plan.changes import refuse_unused
from fedpeft.study.plan.recipe import trained_by


def render_job(
    name: str,
    out: Path | str = "jobs",
    *,
    job: str | None = None,
    method: str | None = None,
    min_sites: int | None = None,
    gpus: Gpus | None = None,
    initial_run: str | None = None,
    training: str | None = None,
    note: Callable[[str], None] = lambda text: None,
    **fields: Any,
) -> Path:
    """Write a FLARE job's folder, which ``nvflare simulator`` runs and ``fedpeft job submit`` sends.

    Args:
        name: name of the job, and of its folder in ``out``.
        out: parent folder.
        job: the shipped job to start from, see ``fedpeft job list``; default: the one called ``name``.
        method: see ``fedpeft methods``; default: the job's.
        min_sites: number of accepted results that a round needs; default: the job's.
        gpus: the GPUs that FLARE reserves at the sites; default: the job's.
        initial_run: name in the server's site file of a finished run that the run starts from; default: the job's.
        training: the recipe whose fields, method and backbone replace the job's, as ``compare --training``; default:
            the job's own. ``method`` and ``fields`` override it.
        note: called with a sentence for people about each thing in which the job differs from the recipe's name.
        **fields: fields of the run, such as ``rounds=50`` or ``labels=("kidney", "tumour")``; labels also set the
            number of classes.

    Returns:
        The job's folder.

    Raises:
        ValueError: there is no such job, a changed job has the name of a shipped one, or a value is out of range; the
            message names the field.
    """
    start = job or name
    if start not in JOBS:
        raise ValueError(f"no job is called {start!r}; name one to start from: {', '.join(JOBS)}")
    if method is not None:
        fields["method"] = method
    old = JOBS[start]
    if training is not None:
        fields = _trained_by(RECIPES.find(training), old.run, fields, note)
    new = replace(
        old,
        run=_changed(old.run, fields),
        min_sites=old.min_sites if min_sites is None else min_sites,
        gpus=old.gpus if gpus is None else gpus,
        initial_run=old.initial_run if initial_run is None else initial_run,
    )
    if name in JOBS and new != JOBS[name]:
        raise ValueError(f"the job is no longer {name}: give it a name of its own with --name")
    return write(replace(new, name=name), Path(out))


def _trained_by(entry: Recipe, run: RunConfig, fields: dict[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """The recipe's fields and those that override them, with the method that the recipe runs."""
    asked = fields.get("method") or next(iter(entry.methods), run.model.method)
    applied = trained_by(entry, fields.get("dataset", run.data.dataset), [asked], fields)
    for text in applied.notes:
        note(text)
    return applied.fields | fields | {"method": applied.methods[asked]}


def _changed(run: RunConfig, fields: dict[str, Any]) -> RunConfig:
    """The job's run with the given fields; labels set the number of classes.

    Raises:
        ValueError: the method has no such option, or values contradict each other.
    """
    changes = dict(fields)
    if changes.get("labels"):
        changes.setdefault("classes", len(changes["labels"]))
    elif {"dataset", "classes"} & changes.keys():
        changes["labels"] = None
    new = run.with_(**changes)
    refuse_unused(run, changes, [new.resolve().model.method])
    return new
