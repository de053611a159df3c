"""``fedpeft compare --show``: the fields of the runs that would be trained, and where each value comes from."""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from fedpeft.cli.options import print_table
from fedpeft.config.jobs import Job
from fedpeft.config.methods import METHODS
from fedpeft.config.presets import ABLATIONS, RECIPES
from fedpeft.config.run import Run
from fedpeft.config.sections import Training
from fedpeft.study.plan.experiments import label
from fedpeft.study.plan.origins import Layers, Value, flat, values_of
from fedpeft.study.plan.recipe import default_job, facts_of, job_of, started_from
from fedpeft.training.server.run_folder import find_run


class Show(argparse.Action):
    """An option that needs no value and makes others optional.

    Args:
        option_strings, dest, help: argparse's.
        spares: options that are required without this one.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, help: str, spares: Sequence[argparse.Action]) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, help=help)
        self.spares = spares

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Note that it was given."""
        setattr(namespace, self.dest, True)
        for action in self.spares:
            action.required = False


def start_of(args: argparse.Namespace) -> Job:
    """The job that a comparison starts from: that of its data, else that of its first method's task."""
    if args.data:
        return job_of(args.data)
    preset = ABLATIONS[args.ablation] if args.ablation else RECIPES[args.training] if args.training else None
    first = initial_run_of(args)
    methods = args.methods or (preset.methods if preset else ()) or ([first.model.method] if first else ())
    return default_job(METHODS[methods[0] if methods else next(iter(METHODS))].tasks[0])


def initial_run_of(args: argparse.Namespace) -> Run | None:
    """The finished run that every training starts from; None: each starts from its initial model."""
    return find_run(args.initial_run).run if args.initial_run else None


def show(args: argparse.Namespace, runs: Sequence[Run], settings: Sequence[str], options: dict[str, Any]) -> None:
    """Print a table of all runs, in which a field is one line if it is the same in all; or JSON, run by run.

    Args:
        args: the command's arguments.
        runs: what would be trained.
        settings: in which settings.
        options: the fields that options of their own names set for every run.
    """
    otherwise = f"recipe {args.training}" if args.training else f"job {start_of(args).name}"
    found = {run: values_of(run, _layers(args, run, options), otherwise) for run in runs}
    if args.json:
        print(json.dumps({"settings": list(settings), "runs": [_plain(*item) for item in found.items()]}, indent=2))
        return
    lines = list(_lines(found))
    head = ["part", "field", "value", "from", "runs"]
    if all(not line[-1] for line in lines):
        lines, head = [line[:-1] for line in lines], head[:-1]
    print_table(head, lines, left=len(head))
    print(f"{len(runs)} run{'s' if len(runs) > 1 else ''} in {', '.join(settings)}; nothing was trained")


def _layers(args: argparse.Namespace, run: Run, options: dict[str, Any]) -> Layers:
    """What set a run's fields, from the weakest to the strongest."""
    job = start_of(args)
    layers: list[tuple[str, dict[str, Any]]] = [
        ("default", {"seed": Training.model_fields["seed"].default}),
        (f"job {job.name}", flat(job.run)),
    ]
    if args.data:
        layers.append(("data", facts_of(args.data)))
    if first := initial_run_of(args):
        taken = {} if args.training else started_from(first, options)
        layers.append(("initial run", {"method": first.model.method, **taken}))
    # A method that a recipe runs in another's place is the recipe's.
    varied = {"rank": run.option("rank")}
    if args.ablation:
        varied |= {"method": run.model.method} if run.model.method in ABLATIONS[args.ablation].methods else {}
        layers.append((f"ablation {args.ablation}", varied))
    if args.training:
        layers.append((f"recipe {args.training}", dict(RECIPES[args.training].fields)))
    options = options | ({"rank": run.option("rank")} if args.ranks else {})
    options |= {"method": run.model.method} if run.model.method in (args.methods or ()) else {}
    if args.learning_rate:
        options |= dict.fromkeys(("learning_rate", "base_learning_rate"), _rate(args, run))
    if args.seed:
        options["seed"] = run.training.seed
    return [*layers, ("option", options)]


def _rate(args: argparse.Namespace, run: Run) -> float | None:
    """The learning rate that the options give to a run."""
    rate = args.learning_rate
    return rate.get(run.model.method) if isinstance(rate, dict) else rate


def _plain(run: Run, values: Sequence[Value]) -> dict[str, Any]:
    fields = [
        {"part": item.part, "field": item.field, "value": item.value, "from": item.origin}
        | ({"no_effect": True} if item.unused else {})
        for item in values
    ]
    return {"label": label(run), "seed": run.training.seed, "fields": fields}


def _lines(found: dict[Run, list[Value]]) -> Iterator[list[str]]:
    """A line for each field and value, with the runs that have it unless all have."""
    having: dict[tuple[str, str], dict[tuple[str, str], list[Run]]] = {}
    for run, values in found.items():
        for item in values:
            same = having.setdefault((item.part, item.field), {})
            same.setdefault((_shown(item), item.origin + ", no effect" * item.unused), []).append(run)
    for place, same in sorted(having.items(), key=lambda item: _order(item[0][0], found)):
        for (value, origin), runs in same.items():
            yield [*place, value, origin, "" if len(runs) == len(found) else _named(runs, list(found))]


def _order(part: str, found: dict[Run, list[Value]]) -> int:
    """The place of a part: an option that only later runs have stands with its part."""
    return list(dict.fromkeys(item.part for values in found.values() for item in values)).index(part)


def _named(runs: Sequence[Run], every: Sequence[Run]) -> str:
    """Some of the runs, by their labels, or by their seeds, where these tell which are meant."""
    for name in (label, lambda run: f"seed {run.training.seed}"):
        names = {name(run) for run in runs}
        if all((name(run) in names) == (run in runs) for run in every):
            return ", ".join(dict.fromkeys(map(name, runs)))
    return ", ".join(f"{label(run)} seed {run.training.seed}" for run in runs)


def _shown(item: Value) -> str:
    return _windows(item.value) if item.field == "windows" else _text(item.value)


def _windows(windows: Sequence[dict[str, Any]]) -> str:
    """Constants such as "site-A -66 to 208, all others -79 to 304"."""
    found = []
    for window in windows:
        own = window["mean"] != 0 or window["std"] != 1
        name = window["site"] or ("all others" if len(windows) > 1 else "")
        scale = f" (mean {window['mean']:.4g}, std {window['std']:.4g})" * own
        found.append(f"{name} {window['low']:.5g} to {window['high']:.5g}{scale}".strip())
    return ", ".join(found) or "none"


def _text(value: Any) -> str:
    """A value for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
