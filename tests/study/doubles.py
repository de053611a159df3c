"""Stand-ins for what costs most of a test's time: worker processes and FLARE's simulator."""

import json
from concurrent.futures import Future
from pathlib import Path

from fedpeft.config.run import Run
from fedpeft.data.datalist import pool, read_sites
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.study.run.simulate import RUN
from fedpeft.training.client.site_file import NAME
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import ROUNDS, RunFolder

BYTES = 263_104


class Here:
    """An executor without processes; it notes what it was given."""

    def __init__(self, *args, **kwargs):
        self.given = []

    def shutdown(self, **kwargs):
        return None

    def submit(self, function, *args):
        # Twice the same would be two processes that train one experiment.
        assert (function, args) not in self.given
        self.given.append((function, args))
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def simulate(job: Path, workspace: Path, sites, threads, seconds, report) -> RunFolder:
    """No simulator and no federation: all sites' cases are trained on as one, and the run folder is put where the
    simulator's server would have it, with the traffic of a federation in its records."""
    config = json.loads((job / "app" / "config" / "config_fed_client.json").read_text())
    run = Run.from_dict(config["components"][0]["args"]["run"])
    data = Path(json.loads((workspace / "local" / NAME).read_text())["datasets"][run.data.dataset]).parents[1]
    here = read_sites(data)
    assert [site.name for site in here] == sites
    folder = train_in_process(
        run,
        [pool(here)],
        shipped(run.backbone),
        workspace / RUN,
        "federated",
        report,
    )
    records = folder.rounds()
    for record in records:
        for site in record["sites"].values():
            site |= {"bytes_up": BYTES, "bytes_down": BYTES}
    (folder.path / ROUNDS).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder
