"""``fedpeft strategies``: list what a server can do in a round, and what goes together."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from fedpeft.cli.options import print_table, subparser
from fedpeft.config.datasets import DATASETS
from fedpeft.config.methods import METHODS, Method
from fedpeft.config.run import make_run
from fedpeft.config.strategies import AVERAGING_RULES, SERVER_OPTIMISERS, SITE_WEIGHTINGS
from fedpeft.config.strategies.combinations import goes_with
from fedpeft.config.tasks import TASKS
from fedpeft.models.payload import whole

Entry = dict[str, Any]


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "strategies",
        help_,
        "fedpeft strategies\n  fedpeft compare --data data/phantom --server-optimiser nesterov --out runs/nesterov",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print a table of each kind."""
    found = {
        "server_optimisers": _server_optimisers(),
        "averaging_rules": _averaging_rules(),
        "site_weightings": _site_weightings(),
    }
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for kind, entries in found.items():
        columns = [name for name in entries[0] if name not in ("moves", "published")]
        lines = [[_shown(entry[name]) for name in columns] for entry in entries]
        title = f"{kind.replace('_', ' ')}: --{kind.replace('_', '-')[:-1]}"
        headings = [name.replace("_", " ") for name in columns]
        print_table(headings, lines, title if kind != "averaging_rules" else "averaging rules, of each method", 9)
    return 0


def _server_optimisers() -> list[Entry]:
    """Every server optimiser with its defaults and the rules whose tensors it moves."""
    return [
        asdict(entry) | {"averaging_rules": [rule for rule in AVERAGING_RULES if goes_with(rule, entry)]}
        for entry in SERVER_OPTIMISERS.values()
    ]


def _averaging_rules() -> list[Entry]:
    """Every averaging rule with the optimisers that move its tensors and the methods that have it."""
    rules = {name: _rules(method) for name, method in METHODS.items()}
    return [
        asdict(entry)
        | {
            "server_optimisers": [name for name, other in SERVER_OPTIMISERS.items() if goes_with(entry.name, other)],
            "methods": [name for name, of_method in rules.items() if entry.name in of_method],
        }
        for entry in AVERAGING_RULES.values()
    ]


def _rules(method: Method) -> set[str]:
    """The rules of the tensors that a method trains, with the usual backbone of its last task."""
    task = TASKS[method.tasks[-1]]
    return {method.rule_of(path) for path in whole(make_run(method.name, task.dataset, task.backbone, classes=2))}


def _site_weightings() -> list[Entry]:
    """Every site weighting with the data sets that have it, "all" unless the weights are published."""
    having = [name for name, dataset in DATASETS.items() if dataset.site_weights]
    return [asdict(entry) | {"datasets": having if entry.published else "all"} for entry in SITE_WEIGHTINGS.values()]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "all" if len(value) == len(METHODS) else ", ".join(value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
