"""``fedpeft compare``: train and test methods in local, federated and centralized training."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import rich.table
from rich.console import Console
from rich.live import Live
from rich.text import Text

from fedpeft.cli.comparison.show import Show, initial_run_of, show, start_of
from fedpeft.cli.evaluate import add_metric_options, scoring_of
from fedpeft.cli.options import method_list, preset_notes, print_table, print_wide, subparser
from fedpeft.cli.run_options import add_run_options, given
from fedpeft.cli.shared.checkpoint_options import add_checkpoint_options, checkpoint_of
from fedpeft.config.presets import ABLATIONS, RECIPES
from fedpeft.config.run import SETTINGS, Run
from fedpeft.study.api import compare_runs
from fedpeft.study.plan.experiments import Plan
from fedpeft.study.plan.recipe import recipe, started_from, trained_by, variations
from fedpeft.study.plots import NO_PLOTS, can_plot
from fedpeft.study.results.metric_table import metric_table
from fedpeft.study.results.table import table
from fedpeft.study.results.table_form import Table
from fedpeft.study.run.compare import Report
from fedpeft.study.run.progress import Progress
from fedpeft.training.server.run_folder import find_run
from fedpeft.training.server.start import other_preprocessing

# Fields of a run for which this command has options of its own.
VARIED = ("rank", "learning_rate", "base_learning_rate")


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "compare",
        help_,
        "fedpeft compare --data data/phantom --methods flap_sam --settings local,federated --out runs/phantom\n"
        "  fedpeft compare --data data/phantom --ablation rank --seed 0,1,2 --out runs/ranks\n"
        "  fedpeft compare --data data/phantom --training paper --show\n\n"
        "Started again with the same --out, it continues and does not repeat what has finished, also with more\n"
        "methods, ranks, settings or seeds.",
    )
    data = parser.add_argument("--data", type=Path, required=True, help="folder of <site>/datalist.json")
    out = parser.add_argument("--out", type=Path, required=True, help="folder for runs, tables and plots")
    parser.add_argument(
        "--show",
        action=Show,
        spares=(data, out),
        help="print every field of the runs, its value and where that comes from, and train nothing; needs neither "
        "--data nor --out, and without --data shows the job of the task's plain data set",
    )
    parser.add_argument("--methods", type=method_list, help="comma-separated (default: that of the data set's job)")
    parser.add_argument("--settings", type=_settings, help=f"comma-separated; default {','.join(SETTINGS)}")
    parser.add_argument("--seed", type=_numbers(0), help="seeds, comma-separated (default 0)")
    ranks = parser.add_mutually_exclusive_group()
    ranks.add_argument("--ranks", type=_numbers(1), help="adapter ranks, comma-separated (default: each method's)")
    ranks.add_argument("--rank", type=_numbers(1), dest="ranks", help="the same as --ranks")
    parser.add_argument(
        "--learning-rate",
        type=_rates,
        metavar="RATE | METHOD=RATE,...",
        help="peak learning rate of adapters, which other methods multiply by their own factor; "
        "or rates of single methods",
    )
    parser.add_argument(
        "--ablation", choices=ABLATIONS, help=preset_notes("defaults for methods, ranks and settings", ABLATIONS)
    )
    parser.add_argument(
        "--training",
        choices=RECIPES,
        help=preset_notes("defaults for how to train, instead of the recipe of the data set's job", RECIPES),
    )
    parser.add_argument(
        "--split", choices=("test", "validation"), default="test", help="split whose cases are tested (default test)"
    )
    add_metric_options(parser)
    parser.add_argument("--minutes", type=float, default=600, help="time limit of a simulator run (default 600)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda:<index>")
    parser.add_argument(
        "--initial-run",
        type=Path,
        help="finished run, also an imported one, whose trained tensors every training starts from; it gives the "
        "method without --methods, and its preprocessing and stack ends without --training and --preprocessing",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_run_options(parser, VARIED)
    add_checkpoint_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Compare, print the table and the names of the files; with --show, print the runs alone."""
    runs, settings = _runs(args)
    if args.show:
        show(args, runs, settings, given(args, VARIED))
        return 0
    checkpoint = checkpoint_of(runs[0], args, must_exist=False)
    start = find_run(args.initial_run).path if args.initial_run else None
    scoring = scoring_of(runs[0], args)
    plan = Plan(args.data, args.out, checkpoint, 60 * args.minutes, args.device, args.split, scoring, start)
    if start and (other := other_preprocessing(start, runs[0])):
        print(f"note: {start} has {other}", file=sys.stderr)
    if not can_plot():
        print(NO_PLOTS, file=sys.stderr)
    with _shown(sys.stderr if args.json else sys.stdout) as report:
        results, plots = compare_runs(plan, runs, settings, report)
    if args.json:
        print(json.dumps(results, indent=2))
        return 0
    _print(table(results["summary"], args.split))
    if further := metric_table(results["summary"]):
        print_table(further.columns, [line for block in further.blocks for line in block])
        print("\n".join(further.notes))
    print(f"{args.out}/table.md, table.csv, cases.csv, results.json, times.json")
    if plots:
        print(f"plots: {', '.join(plot.name for plot in plots)}")
    return 0


def _print(found: Table) -> None:
    """Print the table; sizes of a method are printed below it, so that 80 columns suffice."""
    shown = rich.table.Table()
    for index, column in enumerate(found.columns[: -found.once]):
        # Only settings and the average may be broken between words.
        whole = column not in ("setting", "Average")
        shown.add_column(column, justify="left" if index < 2 else "right", no_wrap=whole)
    for block in found.blocks:
        for line in block:
            shown.add_row(*line[: -found.once], end_section=line is block[-1])
    print_wide(shown)
    print("\n".join(found.sizes + found.notes))


def _runs(args: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """The runs and settings that the options ask for, with defaults from presets.

    Raises:
        ValueError: a learning rate is given for a method that is not compared, or a field is out of range.
    """
    ablation = ABLATIONS[args.ablation] if args.ablation else None
    chosen = RECIPES[args.training] if args.training else None
    preset, changes = ablation or chosen, given(args, VARIED)
    start = recipe(args.data) if args.data else start_of(args).run
    if first := initial_run_of(args):
        start = start.with_(method=first.model.method, **({} if chosen else started_from(first, changes)))
    methods = args.methods or list(preset.methods if preset else ()) or [start.model.method]
    settings = args.settings or list(ablation.settings if ablation else SETTINGS)
    ranks = args.ranks or (ablation.ranks if ablation else ())
    training = trained_by(chosen, args.data, methods, changes)
    for note in training.notes:
        print(f"note: {note}", file=sys.stderr)
    fields, rates = training.fields, _rates_by_entry(args.learning_rate, training.methods)
    if isinstance(args.learning_rate, float):
        # In a recipe with one rate for all methods, the option replaces it; else each method derives its own.
        alike = fields.get("learning_rate", start.training.learning_rate) is not None
        fields |= {"learning_rate" if alike else "base_learning_rate": args.learning_rate}
    return variations(start, [*training.methods.values()], args.seed or [0], ranks, fields | changes, rates), settings


def _rates_by_entry(asked: float | dict[str, float] | None, methods: Mapping[str, str]) -> dict[str, float]:
    """The learning rates of single methods, by the entry that runs.

    Raises:
        ValueError: a rate is of a method that is not compared.
    """
    rates = asked if isinstance(asked, dict) else {}
    known = {entry: entry for entry in methods.values()} | dict(methods)
    if odd := rates.keys() - known.keys():
        raise ValueError(f"--learning-rate names {sorted(odd)[0]}, --methods only {', '.join(methods)}")
    return {known[name]: rate for name, rate in rates.items()}


class _Line:
    """The progress line on a terminal, rendered repeatedly so that its times advance between events."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def __call__(self, progress: Progress, event: str) -> None:
        self._progress = progress

    def __rich__(self) -> Text:
        text = f"{self._progress.line()} | {self._progress.running()}" if self._progress else ""
        return Text(text, no_wrap=True, overflow="ellipsis")


@contextmanager
def _shown(stream: TextIO) -> Iterator[Report]:
    """Yield a function that shows progress: one rewritten line on a terminal, else a line for each event."""
    if not stream.isatty():
        yield lambda progress, event: print(f"{progress.line()} | {event}", file=stream, flush=True)
        return
    line = _Line()
    with Live(line, console=Console(file=stream), transient=True):
        yield line


def _settings(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown setting {unknown[0]!r}; known: {', '.join(SETTINGS)}")
    return names


def _numbers(least: int) -> Callable[[str], list[int]]:
    def parsed(text: str) -> list[int]:
        numbers = [int(part) for part in text.split(",")]
        if min(numbers) < least:
            raise argparse.ArgumentTypeError(f"{min(numbers)} in {text!r}, expected {least} or more")
        return numbers

    parsed.__name__ = "list of numbers"
    return parsed


def _rates(text: str) -> float | dict[str, float]:
    """Parse one learning rate for all methods, or METHOD=RATE pairs."""
    if "=" not in text:
        return _rate(text)
    pairs = [part.partition("=") for part in text.split(",")]
    method_list(",".join(name for name, _, _ in pairs))
    return _once((name, _rate(value)) for name, _, value in pairs)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate; expected a number above 0, as 0.002 or 2e-3")
    return value


def _once(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in pairs:
        if name in found:
            raise argparse.ArgumentTypeError(f"{name} has two learning rates; give one")
        found[name] = value
    return found
