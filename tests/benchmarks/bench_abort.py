"""How long an abort takes to end training: from the command of a lead who is logged in to the end of the last trainer.

    python tests/benchmarks/bench_abort.py [--repeats 3]

A server and two hospitals over mutual TLS on loopback, from provisioned kits; each job is aborted in its second round.
A trainer stops before its next step; then FLARE waits 3 s before it ends the process. Nothing is asserted.
"""

import argparse
import sys
import tempfile
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("custom", "tests", "tests/federated")]
from consortium import LEAD, Consortium  # noqa: E402 (tests/federated/consortium.py)

from fedpeft.config.jobs import Job  # noqa: E402
from fedpeft.config.run import make_run  # noqa: E402
from fedpeft.data.phantom.sites import write_phantom  # noqa: E402
from fedpeft.flare.rendering import write  # noqa: E402

SITES = ["hospital-1", "hospital-2"]
RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=200)


def aborted(consortium: Consortium) -> float:
    """Seconds from the lead's command until both trainers have ended."""
    job = consortium.submit(
        write(Job("endless", RUN.config, min_sites=2, poll_seconds=0.1), consortium.folder / "jobs")
    )
    consortium.await_round(job, 1)
    trainers = [consortium.job_process(site, job_id=job) for site in SITES]
    start = time.monotonic()
    command = threading.Thread(target=consortium.admin(LEAD).abort, args=(job,))
    command.start()
    for process in trainers:
        process.wait()
    ended = time.monotonic() - start
    command.join()
    return ended


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="jobs (default 3)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(sys.stdout):
        data = write_phantom(Path(folder) / "data", sites=3, seed=0)
        with redirect_stdout(sys.stderr), Consortium(Path(folder) / "consortium", SITES, data) as consortium:
            consortium.start("server")
            consortium.start(*SITES)
            times = [aborted(consortium) for _ in range(arguments.repeats)]
    print(f"trainers ended after {median(times):.1f} s, the median of {', '.join(f'{one:.1f}' for one in times)}")


if __name__ == "__main__":
    main()
