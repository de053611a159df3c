"""What a round costs beside its training: 3 rounds of 3 sites through FLARE's simulator, with training that is free.

    python tests/benchmarks/bench_round.py [--json FILE] [--repeats 3] [--poll 0.1] [--folder DIR]

A linear probe of the small ViT on 12 tiny images a site, one step a round. Ours: the job as it is rendered for one
machine, run as ``fedpeft compare`` runs it. FLARE's way: the same job with FLARE's default intervals, and the simulator
left to end by itself. The split comes from the times in FLARE's own logs. Processor seconds are of all processes, read
from /proc while they run: they hardly depend on what else the machine does, the other seconds need a quiet one.
Nothing is asserted: the table is the result.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "custom"), str(ROOT / "tests")]
from small_images import write_small_images  # noqa: E402 (tests/small_images.py)

from fedpeft.common.files import write_json  # noqa: E402
from fedpeft.config.jobs import Job  # noqa: E402
from fedpeft.config.run import make_run  # noqa: E402
from fedpeft.flare.rendering import policy, write  # noqa: E402
from fedpeft.study.run.simulate import RUN as SERVER_RUN  # noqa: E402
from fedpeft.study.run.simulate import VARIABLE, end_simulation, simulate  # noqa: E402
from fedpeft.training.client.site_file import register  # noqa: E402
from fedpeft.training.server.run_folder import DESCRIPTION, find_run  # noqa: E402

SITES = ["site-1", "site-2", "site-3"]
RUN = make_run("linear_probe", "images", "vit_tiny", classes=3, rounds=3, image_size=32, batch=12, initial="random")
LIMIT = 300.0
# What a round writes: the tensors, its record, its scores, the run's description.
FILES = 4
# FLARE's defaults: ServerRunner's task_request_interval and ScatterAndGather's task_check_period, in seconds.
REQUEST, CHECK = 2.0, 0.5
STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})")
# The server's log says the first two once a round, a site's the others, before and after its executor.
BEGUN, FINISHED = "Round {} started", "Round {} finished"
GIVEN, DONE = "got task assignment: name=train", "finished processing task"


def prepare(folder: Path, poll: float | None) -> Path:
    """Write data, workspace and job, with FLARE's own intervals where ``poll`` is None; returns the job's folder."""
    data = write_small_images(folder / "data")
    local = folder / "workspace" / "local"
    local.mkdir(parents=True)
    (local / "resources.json").write_text(json.dumps(policy()))
    register(folder / "workspace", RUN.data.dataset, data)
    job = write(Job("free", RUN.config, min_sites=len(SITES), poll_seconds=poll or REQUEST), folder / "jobs")
    if poll is None:
        file = job / "app" / "config" / "config_fed_server.json"
        config = json.loads(file.read_text())
        config["workflows"][0]["args"]["task_check_period"] = CHECK
        file.write_text(json.dumps(config))
    return job


def ours(job: Path, workspace: Path) -> None:
    """As compare runs a federation."""
    simulate(job, workspace, SITES, len(SITES), LIMIT, lambda record: None)


def reference(job: Path, workspace: Path) -> None:
    """The simulator from its start to its own end."""
    command = [sys.executable, "-m", "nvflare.cli", "simulator", str(job), "-w", str(workspace), "-c", ",".join(SITES)]
    environment = os.environ | {VARIABLE: str(workspace.absolute())}
    with workspace.with_suffix(".log").open("w") as log:
        try:
            subprocess.run(
                [*command, "-t", str(len(SITES))],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                timeout=LIMIT,
                check=False,
            )
        finally:
            end_simulation(workspace)


class Processor(threading.Thread):
    """Adds up the processor seconds of a simulation's processes."""

    def __init__(self, workspace: Path) -> None:
        super().__init__(daemon=True)
        self._mine, self._ended = str(workspace.absolute()), threading.Event()
        self._used: dict[tuple[int, float], float] = {}

    def run(self) -> None:
        """Look until told to stop; what a process uses after the last look is missed."""
        while not self._ended.wait(0.5):
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if process.environ().get(VARIABLE) == self._mine:
                        times = process.cpu_times()
                        self._used[process.pid, process.create_time()] = times.user + times.system

    def seconds(self) -> float:
        """Stop looking; the sum."""
        self._ended.set()
        self.join()
        return sum(self._used.values())


def one_run(folder: Path, way: Callable[[Path, Path], None], poll: float | None) -> dict[str, float]:
    """One job's seconds, split."""
    job, workspace = prepare(folder, poll), folder / "workspace"
    processor = Processor(workspace)
    processor.start()
    start = time.time()
    way(job, workspace)
    end = time.time()
    status = find_run(workspace / "server").description["status"]
    if status != "finished":
        raise RuntimeError(f"the job ended as {status!r}; its logs are below {workspace}")
    return {"all": end - start, "cpu": processor.seconds()} | split(workspace, start, end)


def split(workspace: Path, start: float, end: float) -> dict[str, float]:
    """Seconds of a finished job's parts.

    "server" until the first round begins: imports and model of the server. "sites" until the first task arrives:
    processes and imports of the sites. "first" until the first round is done: their models, the
    first step. "round" is the mean of the others without the slowest site's executor: polling,
    messages, average, files. "validation" is the last task, "shutdown" what follows.
    """
    server = lines(workspace / "server" / "log.txt")
    sites = [lines(workspace / name / "log.txt") for name in SITES]
    begun = [first(server, BEGUN.format(number)) for number in range(RUN.federation.rounds)]
    finished = [first(server, FINISHED.format(number)) for number in range(RUN.federation.rounds)]
    given, done = ([every(site, text)[: RUN.federation.rounds] for site in sites] for text in (GIVEN, DONE))
    trained = [max(d[n] - g[n] for g, d in zip(given, done, strict=True)) for n in range(RUN.federation.rounds)]
    followers = range(1, RUN.federation.rounds)
    rounds = [finished[n] - finished[n - 1] for n in followers]
    arrived, concluded = min(g[0] for g in given), (workspace / SERVER_RUN / DESCRIPTION).stat().st_mtime
    return {
        "server": begun[0] - start,
        "sites": arrived - begun[0],
        "first": finished[0] - arrived,
        "round": median(spent - trained[n] for n, spent in zip(followers, rounds, strict=True)),
        "executor": median(trained[1:]),
        "validation": concluded - finished[-1],
        "shutdown": end - concluded,
    }


def lines(log: Path) -> list[tuple[float, str]]:
    """(time, line) of a log's lines."""
    found = ((STAMP.match(line), line) for line in log.read_text().splitlines())
    return [(datetime.strptime(m[1], "%Y-%m-%d %H:%M:%S,%f").timestamp(), line) for m, line in found if m]


def every(log: list[tuple[float, str]], text: str) -> list[float]:
    """The times at which a log says ``text``."""
    return [at for at, line in log if text in line]


def first(log: list[tuple[float, str]], text: str) -> float:
    """The first of them."""
    return every(log, text)[0]


def measure(folder: Path, repeats: int, poll: float) -> dict[str, Any]:
    """Everything the table shows, ready for JSON."""
    ways = {"ours": (ours, poll), "reference": (reference, None)}
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way, (run, interval) in ways.items():
            runs[way].append(one_run(folder / f"{way}-{repeat}", run, interval))
    entries = {way: {key: median(one[key] for one in found) for key in found[0]} for way, found in runs.items()}
    return {
        "rounds": RUN.federation.rounds,
        "sites": len(SITES),
        "poll": poll,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "lower_bound": flushed(folder),
        "imports": imports(),
        **entries,
    }


def imports() -> dict[str, float]:
    """Processor seconds of what a site's process imports, one after another; three such processes start at once."""
    steps = {
        "torch": "import torch",
        "flare": "import nvflare.private.fed.app.simulator.simulator_worker",
        "fedpeft": "import fedpeft.flare.executor",
    }
    lines = [f"{step}; print(time.process_time())" for step in steps.values()]
    code = "\n".join(["import sys, time", f"sys.path.insert(0, {str(ROOT / 'custom')!r})", *lines])
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    marks = [0.0, *map(float, ran.stdout.split())]
    return {name: after - before for name, before, after in zip(steps, marks, marks[1:], strict=False)}


def flushed(folder: Path) -> float:
    """Seconds for what every round must write before the next may begin, median of nine."""
    times = []
    for _ in range(9):
        start = time.perf_counter()
        for number in range(FILES):
            write_json(folder / f"{number}.json", {"round": number})
        times.append(time.perf_counter() - start)
    return median(times)


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    head = f"{result['rounds']} rounds of {result['sites']} sites, free training, {result['cores']} cores"
    names = list(result["ours"])
    times = [f"{way:>9}" + "".join(f"{result[way][name]:>11.2f}" for name in names) for way in ("ours", "reference")]
    least = f"lower bound of a round: {FILES} small files, written and flushed in turn: {result['lower_bound']:.3f} s"
    each = ", ".join(f"{name} {seconds:.2f}" for name, seconds in result["imports"].items())
    load = f"load {result['load']:.1f}: " + ("quiet" if result["load"] < result["cores"] else "NOT a quiet machine")
    return "\n".join(
        [
            head,
            load,
            f"{'':>9}" + "".join(f"{name:>11}" for name in names),
            *times,
            f"cpu s of one site's imports: {each}",
            least,
        ]
    )


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--repeats", type=int, default=3, help="jobs of each way (default 3)")
    parser.add_argument("--poll", type=float, default=0.1, help="seconds between a site's questions (default 0.1)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), arguments.repeats, arguments.poll)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
