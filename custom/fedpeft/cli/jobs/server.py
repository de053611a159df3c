"""``fedpeft job submit|watch|log|abort|download``: submit jobs to a server and follow them, with a person's kit."""

import argparse
import shlex
import tempfile
from pathlib import Path

from fedpeft.config.jobs import JOBS
from fedpeft.deploy.following import COMPLETED, finished_run, follow, last_job
from fedpeft.deploy.session import AdminSession
from fedpeft.flare.rendering import write


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return the exit status."""
    with AdminSession(args.kit) as session:
        return COMMANDS[args.job_command](session, args)


def _submit(session: AdminSession, args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        job = session.submit(_folder(args.job, Path(folder)))
    print(f"submitted: {job}", flush=True)
    if args.watch:
        return _watched(session, job, args)
    print(f"follow it with: {_again(job, args)}")
    return 0


def _watch(session: AdminSession, args: argparse.Namespace) -> int:
    return _watched(session, args.id, args)


def _watched(session: AdminSession, job: str, args: argparse.Namespace) -> int:
    try:
        last = follow(session, job, lambda line: print(line, flush=True), args.every)
    except KeyboardInterrupt:
        print(f"the job goes on; follow it again with: {_again(job, args)}")
        raise
    return _fetch(session, last, args)


def _download(session: AdminSession, args: argparse.Namespace) -> int:
    return _fetch(session, last_job(session, args.id), args)


def _fetch(session: AdminSession, job: str, args: argparse.Namespace) -> int:
    """Fetch the result; raise RuntimeError if the run did not finish."""
    result = finished_run(session, job, args.out)
    status = session.meta(job)["status"]
    if status != COMPLETED:
        print(f"the run finished; FLARE ended its job as {status}, as it does when a site was lost or came late")
    folder = shlex.quote(str(args.out / job))
    print(f"finished: {result.path}")
    print(f"  fedpeft evaluate --run {folder} --data DIR\n  fedpeft infer --run {folder} --image FILE --out FILE")
    return 0


def _log(session: AdminSession, args: argparse.Namespace) -> int:
    print(session.log(args.id), end="")
    return 0


def _abort(session: AdminSession, args: argparse.Namespace) -> int:
    print(session.abort(last_job(session, args.id)))
    return 0


COMMANDS = {"submit": _submit, "watch": _watch, "log": _log, "abort": _abort, "download": _download}


def _folder(job: str, folder: Path) -> Path:
    """The folder of ``job``, which is written below ``folder`` if ``job`` is the name of a shipped job.

    Raises:
        ValueError: ``job`` is neither a folder nor a name.
    """
    if (Path(job) / "meta.json").is_file():
        return Path(job)
    if job in JOBS:
        return write(JOBS[job], folder)
    raise ValueError(f"{job} is no folder with a meta.json and no shipped job; shipped are {', '.join(JOBS)}")


def _again(job: str, args: argparse.Namespace) -> str:
    return f"fedpeft job watch {job} --kit {shlex.quote(str(args.kit))} --out {shlex.quote(str(args.out))}"
