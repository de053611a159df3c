"""``fedpeft methods``: list the parameters that each method trains, and the bytes that it sends in a round."""

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

from fedpeft.cli.options import print_table, subparser
from fedpeft.cli.run_options import add_run_options, given
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.methods import METHODS
from fedpeft.config.run import Run, make_run
from fedpeft.config.sections import SECTION_OF
from fedpeft.config.tasks import TASKS
from fedpeft.models.payload import counts, exchanged
from fedpeft.tasks.registry import task_of


@dataclass(frozen=True)
class Counts:
    """A method's parameters for a task, and the bytes of one site's update in float32 without headers."""

    name: str
    task: str
    trainable: int
    total: int
    payload_bytes: int


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers,
        "methods",
        help_,
        "fedpeft methods --backbone sam_vit_b --classes 2\n  fedpeft methods --backbone sam_vit_h --task segmentation",
    )
    parser.add_argument("--task", choices=sorted(TASKS), help="list only methods of this task")
    parser.add_argument("--classes", type=int, help="classes without background (default 1; classification 8)")
    parser.add_argument(
        "--backbone", choices=sorted(BACKBONES), help="backbone (default sam_vit_b; classification vit_b16)"
    )
    add_run_options(parser, without={"backbone", *SECTION_OF})
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print a table for each task, from names and shapes alone: no checkpoint is needed."""
    tasks = [name for name in ([args.task] if args.task else TASKS) if _asked(name, args)]
    if not tasks:
        raise ValueError(f"--backbone {args.backbone} serves {', '.join(BACKBONES[args.backbone].tasks)} alone")
    found = {name: _counted_methods(name, args) for name in tasks}
    if args.json:
        print(json.dumps([asdict(counts) for methods, _ in found.values() for _, counts in methods], indent=2))
        return 0
    for name, (methods, left_out) in found.items():
        _print(name, methods)
        print("".join(f"left out: {reason}\n" for reason in left_out), end="")
    return 0


def _asked(name: str, args: argparse.Namespace) -> bool:
    """Whether a task's methods are listed.

    A list of all tasks leaves out those that backbone or classes do not fit, and those with the methods of another one.
    """
    task = TASKS[name]
    enough = (args.classes or task.classes) + task.background > 1
    asked = args.task is not None
    return task.base in BACKBONES[args.backbone or task.backbone].tasks and (asked or (enough and not task.like))


def _counted_methods(name: str, args: argparse.Namespace) -> tuple[list[tuple[Run, Counts]], list[str]]:
    """Count every method of a task; return the counts, and the reasons why some methods are left out."""
    task = TASKS[name]
    backbone, classes = args.backbone or task.backbone, args.classes or task.classes
    methods, left_out = [], []
    for method in METHODS.values():
        if method.suits(task):
            run = make_run(
                method.name,
                task.dataset,
                backbone,
                classes=classes,
                **given(args, without={"backbone", *SECTION_OF}),
            )
            try:
                methods.append((run, counted(run)))
            except ValueError as error:
                left_out.append(str(error))
    return methods, left_out


def _print(name: str, methods: list[tuple[Run, Counts]]) -> None:
    lines = [
        [
            run.model.method,
            run.method.title,
            run.method.note,
            *_on(run),
            f"{counts_.trainable:,}",
            f"{counts_.total:,}",
            f"{counts_.payload_bytes / 1e6:,.2f} MB",
        ]
        for run, counts_ in methods
    ]
    first = methods[0][0]
    title = f"{name}, {first.model.backbone}, {first.data.classes} class{'es' if first.data.classes > 1 else ''}"
    head = ["method", "in its paper", "what trains", "rank", "px", "more", "trainable", "total", "upload a round"]
    print_table(head, lines, title)


def _on(run: Run) -> list[str]:
    """Columns that depend on the backbone: rank of the adapters, image size, and notes on single methods."""
    more = task_of(run).notes(run)
    more += [f"{value} {name}" for name, value in (("prompts", run.option("prompts")), ("blocks", run.blocks)) if value]
    return [str(run.option("rank") or ""), str(run.model.image_size), ", ".join(more)]


def counted(run: Run) -> Counts:
    """Count the parameters that a run trains and the bytes that a site sends."""
    trainable, total = counts(run)
    return Counts(run.model.method, run.task.name, trainable, total, 4 * exchanged(run))
