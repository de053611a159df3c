import json
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from nvflare.apis.fl_component import FLComponent

from fedpeft.config.jobs import JOBS
from fedpeft.flare.rendering import ALLOW_LIST, policy, render

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("name", JOBS)
def test_committed_jobs_are_their_rows(name):
    folder = REPOSITORY / "jobs" / name
    files = [file for file in folder.rglob("*") if file.is_file()]
    found = {str(file.relative_to(folder)): json.loads(file.read_text()) for file in files}
    assert found == render(JOBS[name]), "render them again: fedpeft job render"


def test_every_job_folder_is_a_row():
    listed = subprocess.run(["git", "ls-files", "jobs"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    # Jobs that were rendered and not committed are the user's.
    committed = {line.split("/")[1] for line in listed.stdout.splitlines() if line.count("/") > 1}
    assert committed == set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_names_no_path_and_nothing_outside_the_allow_list(name):
    def strings(value, key=""):
        if isinstance(value, dict):
            for inner, item in value.items():
                yield from strings(item, inner)
        elif isinstance(value, list):
            for item in value:
                yield from strings(item, key)
        else:
            yield key, value

    for content in render(JOBS[name]).values():
        for key, value in strings(content):
            if key == "path":
                assert value in ALLOW_LIST
            elif isinstance(value, str):
                assert "/" not in value, f"{key}: {value}"


def test_the_simulators_allow_list_is_the_policy():
    file = REPOSITORY / "poc" / "simulator" / "local" / "resources.json"
    assert json.loads(file.read_text()) == policy()


@pytest.mark.parametrize("entry", ALLOW_LIST)
def test_the_allow_list_names_components_one_by_one(entry):
    """No prefix, and nothing but FLARE components: FLARE would call any function that a job may name."""
    module, _, name = entry.rpartition(".")
    part = getattr(import_module(module), name)
    assert isinstance(part, type) and issubclass(part, FLComponent) and part.__module__ == module


def test_a_sites_log_stays_at_the_site():
    assert policy()["allow_log_streaming"] is False
