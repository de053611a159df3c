"""``fedpeft job``: FLARE jobs, listed and rendered; what the server does with them is in job_server.py."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpeft.cli.job_parsers import add_server_parsers
from fedpeft.cli.options import print_table, subparser
from fedpeft.cli.run_options import add_run_options, given
from fedpeft.config.adapters import option_fields
from fedpeft.config.gpus import Gpus
from fedpeft.config.jobs import JOBS
from fedpeft.config.methods import METHODS
from fedpeft.config.run import RunConfig
from fedpeft.flare.rendering import write


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand and its own subcommands."""
    parser = subparser(subparsers, "job", help_, "fedpeft job list")
    commands = parser.add_subparsers(dest="job_command", required=True)
    listing = subparser(commands, "list", "list the jobs that come with the package", "fedpeft job list --json")
    listing.add_argument("--json", action="store_true", help="print JSON")
    subparser(
        commands, "schema", "print the JSON schema of a run: every field, its help, range and default",
        "fedpeft job schema > run.schema.json",
    )  # fmt: skip
    rendering = subparser(
        commands,
        "render",
        "write a job's folder, as it is or with changes",
        "fedpeft job render flap_sam_folder --labels kidney,tumour --rounds 50 --name flap_sam_kidneys --out jobs",
    )
    rendering.add_argument("job", nargs="?", choices=sorted(JOBS), help="job to start from (default: all, unchanged)")
    rendering.add_argument("--out", type=Path, default=Path("jobs"), help="parent folder (default jobs)")
    rendering.add_argument("--name", help="name of the rendered job; needed as soon as anything is changed")
    rendering.add_argument("--method", choices=sorted(METHODS), metavar="METHOD", help="see fedpeft methods")
    rendering.add_argument("--dataset", help="data set, as the site files call it")
    names = rendering.add_mutually_exclusive_group()
    names.add_argument("--labels", type=lambda text: tuple(text.split(",")), help="names of the classes, from 1 on")
    names.add_argument("--classes", type=int, help="number of classes, where sites may name them as they like")
    rendering.add_argument("--seed", type=int, help="seed of the run")
    rendering.add_argument("--min-sites", type=int, help="accepted results that a round needs")
    rendering.add_argument("--gpus", type=int, default=0, help="GPUs that FLARE reserves at a site: 0 or 1")
    rendering.add_argument("--gpu-memory", type=float, default=0.0, help="GiB that it reserves of each, at --gpu-sites")
    rendering.add_argument(
        "--gpu-sites", type=lambda text: tuple(text.split(",")), default=(), help="sites with GPUs (default: all sites)"
    )
    add_run_options(rendering)
    add_server_parsers(commands)
    commands.metavar = "|".join(commands.choices)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do one of them."""
    if args.job_command in OWN:
        return OWN[args.job_command](args)
    from fedpeft.cli import job_server  # with torch and FLARE, for which the others need not wait

    return job_server.run(args)


def _list(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps([{"name": job.name, "run": job.run.to_dict()} for job in JOBS.values()], indent=2))
        return 0
    runs = {job: job.run.resolve() for job in JOBS.values()}
    lines = [
        [
            job.name,
            run.model.method,
            run.data.dataset,
            run.model.backbone,
            str(run.federation.rounds),
            str(job.min_sites),
        ]
        for job, run in runs.items()
    ]
    print_table(["job", "method", "data set", "backbone", "rounds", "sites needed"], lines)
    return 0


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(RunConfig.model_json_schema(), indent=2))
    return 0


def _render(args: argparse.Namespace) -> int:
    if args.name and not args.job:
        raise ValueError(f"--name {args.name} without a job to start from; name one of {', '.join(JOBS)}")
    for job in [JOBS[args.job]] if args.job else list(JOBS.values()):
        needed = job.min_sites if args.min_sites is None else args.min_sites
        gpus = Gpus(args.gpus, args.gpu_memory, args.gpu_sites)
        new = replace(job, run=_changed(job.run, args), min_sites=needed, gpus=gpus)
        if new != job and not args.name:
            raise ValueError(f"the job is no longer {job.name}: give it a name of its own with --name")
        print(write(new if not args.name else replace(new, name=args.name), args.out))
    return 0


def _changed(run: RunConfig, args: argparse.Namespace) -> RunConfig:
    """The job's run with the options that were given.

    Raises:
        ValueError: the method has no such option, or values do not fit one another.
    """
    names = ("method", "dataset", "labels", "classes", "seed")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if {"dataset", "classes"} & changes.keys():
        changes.setdefault("labels", None)
    if changes.get("labels"):
        changes["classes"] = len(changes["labels"])
    changes |= given(args)
    new = run.with_(**changes)
    resolved = new.resolve()
    for name in option_fields().keys() & changes.keys():
        if name not in resolved.method.options:
            raise ValueError(f"{name} is {changes[name]!r}, but method {resolved.model.method} has no such option")
    return new


OWN = {"list": _list, "render": _render, "schema": _schema}
