"""Entry point of the command ``fedpeft``."""

import argparse
import os
import sys
from importlib import import_module

from fedpeft import __version__

# Subcommand -> its help. Only the requested one is imported, since torch, MONAI and FLARE take seconds.
COMMANDS = {
    "methods": "list the methods with their parameters and bytes a round",
    "strategies": "list what a server can do in a round, and what goes together",
    "data": "make, prepare and check folders of sites",
    "job": "list, render, submit and follow FLARE jobs",
    "compare": "train methods in several settings on a folder of sites, and test every model at every site",
    "evaluate": "score a finished run's model on a folder of sites, per case, site and class",
    "infer": "apply a run's model to one image: write the mask of a volume, or the class of a JPEG or PNG",
    "import": "make a run of a model that FLAP-SAM, SAMed, MA-SAM or MedSAM trained",
    "export": "write a run's model as a file that FLAP-SAM, SAMed or MA-SAM loads",
    "doctor": "check whether this machine can take part: a hospital's, the server or an admin's",
}
# Errors that a user can repair with the message's help; any other is a defect and shows its traceback.
EXPECTED = (ValueError, OSError, RuntimeError)


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return the exit status, which is 0 only on success."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="fedpeft", description="Federated parameter-efficient fine-tuning of foundation models on NVIDIA FLARE."
    )
    parser.add_argument("--version", action="version", version=f"fedpeft {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_ in COMMANDS.items():
        if arguments[:1] == [name]:
            command = import_module(f"fedpeft.cli.{name}")
            command.add_parser(subparsers, help_).set_defaults(run=command.run)
        else:
            subparsers.add_parser(name, help=help_)
    args = parser.parse_args(arguments)
    try:
        return args.run(args)
    except BrokenPipeError:
        # The reader, such as head, has all that it wanted; Python must not write to it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EXPECTED as error:
        print(f"fedpeft {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fedpeft {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
