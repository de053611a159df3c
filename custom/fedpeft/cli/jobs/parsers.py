"""The options of ``fedpeft job submit|watch|log|abort|download``, in a module that does not import FLARE."""

import argparse
from pathlib import Path
from typing import Any

from fedpeft.cli.options import subparser

KIT = "--kit kits/fedpeft/prod_00/lead@example.org"
EVERY = 5.0


def add_server_parsers(commands: Any) -> None:
    """Add the subcommands of ``fedpeft job`` that talk to the server."""
    submitting = _parser(
        commands,
        "submit",
        "submit a job to the server",
        f"fedpeft job submit flap_sam_folder {KIT} --watch",
    )
    submitting.add_argument("job", help="folder of a job, or name of a shipped job (fedpeft job list)")
    submitting.add_argument("--watch", action="store_true", help="follow the job, then fetch the result")
    _followed(_result(submitting))
    _followed(
        _result(
            _with_id(
                _parser(
                    commands,
                    "watch",
                    "follow a job to its end, then fetch the result; fail if the run did not finish",
                    f"fedpeft job watch ID {KIT}",
                )
            )
        )
    )
    _with_id(_parser(commands, "log", "print the server's log of a job", f"fedpeft job log ID {KIT}"))
    _with_id(_parser(commands, "abort", "end a job at the server and all sites", f"fedpeft job abort ID {KIT}"))
    _result(
        _with_id(
            _parser(
                commands,
                "download",
                "fetch the result of a job that has ended",
                f"fedpeft job download ID {KIT} --out results",
            )
        )
    )


def _parser(commands: Any, name: str, help_: str, example: str) -> argparse.ArgumentParser:
    parser = subparser(commands, name, help_, example)
    parser.add_argument("--kit", type=Path, required=True, help="your kit, the folder with startup/ and local/")
    return parser


def _with_id(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("id", help="the job's id, which job submit prints")
    return parser


def _result(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="the result is written to OUT/ID (default results)"
    )
    return parser


def _followed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two requests (default 5)")
