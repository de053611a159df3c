"""``fedpeft job``: list and render FLARE jobs; ``jobs.server`` has the subcommands for jobs at a server."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fedpeft.cli.jobs.parsers import add_server_parsers
from fedpeft.cli.options import preset_notes, print_table, subparser
from fedpeft.cli.run_options import add_run_options, given
from fedpeft.config.gpus import Gpus
from fedpeft.config.jobs import JOBS
from fedpeft.config.methods import METHODS
from fedpeft.config.presets import RECIPES
from fedpeft.config.run import RunConfig
from fedpeft.study.plan.rendering import render_job

# Fields of a run that are options of ``render``, besides those that several commands share.
CHANGES = ("method", "dataset", "labels", "classes", "seed")


def add_parser(subparsers: Any, help_: str) -> argparse.ArgumentParser:
    """Add the subcommand and its own subcommands."""
    parser = subparser(subparsers, "job", help_, "fedpeft job list")
    commands = parser.add_subparsers(dest="job_command", required=True)
    listing = subparser(commands, "list", "list the jobs that the package ships", "fedpeft job list --json")
    listing.add_argument("--json", action="store_true", help="print JSON")
    subparser(
        commands, "schema", "print the JSON schema of a run: every field, its help, range and default",
        "fedpeft job schema > run.schema.json",
    )  # fmt: skip
    rendering = subparser(
        commands,
        "render",
        "write the folder of a shipped job, unchanged or with changes",
        "fedpeft job render flap_sam_folder --labels kidney,tumour --rounds 50 --name flap_sam_kidneys --out jobs\n"
        "  fedpeft job render flap_sam_kits19 --training authors --name flap_sam_kits19_authors --out jobs",
    )
    rendering.add_argument("job", nargs="?", choices=sorted(JOBS), help="job to start from (default: all jobs)")
    rendering.add_argument("--out", type=Path, default=Path("jobs"), help="parent folder (default jobs)")
    rendering.add_argument("--name", help="name of the rendered job; required with any change")
    rendering.add_argument("--method", choices=sorted(METHODS), metavar="METHOD", help="see fedpeft methods")
    rendering.add_argument(
        "--training",
        choices=RECIPES,
        help=preset_notes("train by this recipe instead of the job's, as compare --training does", RECIPES),
    )
    rendering.add_argument("--dataset", help="name of the data set in the site files")
    names = rendering.add_mutually_exclusive_group()
    names.add_argument(
        "--labels", type=lambda text: tuple(text.split(",")), help="names of the classes, comma-separated"
    )
    names.add_argument("--classes", type=int, help="number of classes, if each site may choose their names")
    rendering.add_argument("--seed", type=int, help="seed of the run")
    rendering.add_argument("--min-sites", type=int, help="number of accepted results that a round needs")
    rendering.add_argument(
        "--initial-run", metavar="NAME", help="start from the finished run of that name in the server's site file"
    )
    rendering.add_argument("--gpus", type=int, default=0, help="GPUs that FLARE reserves at a site, 0 or 1 (default 0)")
    rendering.add_argument("--gpu-memory", type=float, default=0.0, help="GiB that FLARE reserves of each GPU")
    rendering.add_argument(
        "--gpu-sites", type=lambda text: tuple(text.split(",")), default=(), help="sites with GPUs (default: all sites)"
    )
    add_run_options(rendering)
    add_server_parsers(commands)
    commands.metavar = "|".join(commands.choices)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return the exit status."""
    if args.job_command in OWN:
        return OWN[args.job_command](args)
    from fedpeft.cli.jobs import server  # imports torch and FLARE, which the other subcommands do not need

    return server.run(args)


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
    gpus = Gpus(args.gpus, args.gpu_memory, args.gpu_sites)
    changes = {name: getattr(args, name) for name in CHANGES if getattr(args, name) is not None} | given(args)
    for name in [args.job] if args.job else JOBS:
        more = {"min_sites": args.min_sites, "gpus": gpus, "initial_run": args.initial_run, "training": args.training}
        more["note"] = lambda text: print(f"note: {text}", file=sys.stderr)
        print(render_job(args.name or name, args.out, job=name, **more, **changes))
    return 0


OWN = {"list": _list, "render": _render, "schema": _schema}
