"""Real runs through FLARE's simulator: each start costs about 20 s, so modules share them."""

import json
import shutil
from pathlib import Path

import pytest

from fedpeft.flare.rendering import policy, write
from fedpeft.study.run.simulate import simulate
from fedpeft.training.client.site_file import register

SECONDS = 240


@pytest.fixture(scope="session")
def federation(small_phantom, small_images):
    """A function that runs a job for named sites and returns (workspace, run folder or the error it ended with)."""

    def run(folder: Path, job, sites, threads, change=lambda files: None, allow=()):
        data = folder / "data"
        given = {"segmentation": small_phantom, "classification": small_images}[job.run.resolve().task.name]
        for index, name in enumerate(sites):
            source = given / f"site-{index % 3 + 1}"
            shutil.copytree(given / name if (given / name).is_dir() else source, data / name)
        workspace = folder / "workspace"
        (workspace / "local").mkdir(parents=True)
        rules = policy()
        rules["class_allow_list"] += allow
        (workspace / "local" / "resources.json").write_text(json.dumps(rules))
        register(workspace, job.run.data.dataset, data)
        path = write(job, folder / "jobs")
        for name in ("config_fed_server.json", "config_fed_client.json"):
            file = path / "app" / "config" / name
            content = json.loads(file.read_text())
            change(content)
            file.write_text(json.dumps(content))
        try:
            return workspace, simulate(path, workspace, sites, threads, SECONDS, lambda record: None)
        except (RuntimeError, TimeoutError) as error:
            return workspace, error

    return run
