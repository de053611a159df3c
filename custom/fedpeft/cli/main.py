"""Entry point of the command ``fedpeft``."""

import argparse
import sys

from fedpeft import __version__
from fedpeft.cli import compare, data, doctor, evaluate, infer, job, methods

COMMANDS = (methods, data, job, compare, evaluate, infer, doctor)
# What a user can mend by reading the message; anything else is a defect and shows its traceback.
EXPECTED = (ValueError, OSError, RuntimeError)


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; the exit code is 0 only if it did what it was asked."""
    parser = argparse.ArgumentParser(
        prog="fedpeft", description="Federated parameter-efficient fine-tuning of foundation models on NVIDIA FLARE."
    )
    parser.add_argument("--version", action="version", version=f"fedpeft {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers).set_defaults(run=command.run)
    args = parser.parse_args(arguments)
    try:
        return args.run(args)
    except EXPECTED as error:
        print(f"fedpeft {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fedpeft {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
