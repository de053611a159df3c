import json
from pathlib import Path

import pytest

from fedpeft.spec.jobs import ALLOW_LIST, JOBS, policy, render

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("name", JOBS)
def test_committed_jobs_are_their_rows(name):
    folder = REPOSITORY / "jobs" / name
    found = {str(file.relative_to(folder)): json.loads(file.read_text()) for file in folder.rglob("*") if file.is_file()}
    assert found == render(JOBS[name]), "render them again: fedpeft job render"


def test_every_job_folder_is_a_row():
    assert {folder.name for folder in (REPOSITORY / "jobs").iterdir() if folder.is_dir()} == set(JOBS)


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
                assert value in ALLOW_LIST or value.startswith(tuple(p for p in ALLOW_LIST if p.endswith(".")))
            elif isinstance(value, str):
                assert "/" not in value, f"{key}: {value}"


def test_the_simulators_allow_list_is_the_policy():
    file = REPOSITORY / "poc" / "simulator" / "local" / "resources.json"
    assert json.loads(file.read_text()) == policy()


def test_no_prefix_opens_flare_as_a_whole():
    prefixes = [entry for entry in ALLOW_LIST if entry.endswith(".")]
    assert prefixes == ["fedpeft.flare."]
