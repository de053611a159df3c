"""Every command: help with an example, what --json promises, and how it fails."""

import json
import subprocess
import sys

import pytest

from fedpeft import __version__
from fedpeft.config.jobs import JOBS
from fedpeft.config.methods import METHODS
from fedpeft.flare.rendering import render


def printed(*arguments, call):
    code, out, err = call(*arguments)
    assert code == 0, err
    return json.loads(out)


def failed(code, out, err, *parts):
    """One line that names what was wrong, no traceback."""
    assert code == 1, (code, out, err)
    assert out == ""
    assert err.startswith("fedpeft ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    assert all(str(part) in err for part in parts), err


@pytest.mark.parametrize(
    "command",
    [
        ["methods"],
        ["data"],
        ["data", "phantom"],
        ["data", "prepare"],
        ["data", "check"],
        ["job"],
        ["job", "list"],
        ["job", "render"],
        ["compare"],
        ["evaluate"],
        ["infer"],
    ],
)
def test_help_has_an_example_of_the_command(fedpeft, command):
    code, out, _ = fedpeft(*command, "--help")
    assert code == 0
    _, found, example = out.lower().partition("example")
    assert found
    assert f"fedpeft {' '.join(command)}" in example


def test_the_main_help_lists_every_command(fedpeft):
    code, out, _ = fedpeft("--help")
    assert code == 0
    assert all(f"    {name} " in out for name in ("methods", "data", "job", "compare", "evaluate", "infer"))


@pytest.mark.parametrize("arguments", [["--help"], ["job", "list"], ["job", "submit", "--help"]])
def test_nobody_waits_for_what_a_command_does_not_need(arguments):
    code = """
import atexit, sys
from fedpeft.cli.main import main
atexit.register(lambda: print(sorted({"torch", "monai", "nvflare"} & sys.modules.keys())))
main(sys.argv[1:])
"""
    ran = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_version(fedpeft):
    assert fedpeft("--version") == (0, f"fedpeft {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["infer"],
        ["methods", "--backbone", "resnet"],
        ["compare", "--data", "d", "--out", "o", "--methods", "flap_sam,unknown"],
        ["compare", "--data", "d", "--out", "o", "--settings", "alone"],
        ["compare", "--data", "d", "--out", "o", "--seed", "one"],
    ],
)
def test_what_cannot_be_parsed_shows_usage(fedpeft, arguments):
    code, out, err = fedpeft(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: fedpeft")


def test_methods_json(fedpeft):
    entries = printed("methods", "--backbone", "sam_tiny", "--classes", 2, "--json", call=fedpeft)
    for task in ("segmentation", "classification"):
        # A grid of patches carries no prompts from block to block.
        expected = [name for name, entry in METHODS.items() if task in entry.tasks and name != "vpt_shallow"]
        assert [entry["name"] for entry in entries if entry["task"] == task] == expected
    for entry in entries:
        assert entry.keys() == {"name", "task", "trainable", "total", "payload_bytes"}
        share = entry["payload_bytes"] / (4 * entry["trainable"])
        assert share < 0.8 if METHODS[entry["name"]].selects else share == 1
        assert 0 < entry["trainable"] <= entry["total"]
    assert {entry["name"] for entry in entries if entry["trainable"] == entry["total"]} == {"full_ft"}


def test_methods_of_a_task_have_its_own_backbone_and_classes(fedpeft):
    entries = printed("methods", "--task", "classification", "--json", call=fedpeft)
    assert [entry["name"] for entry in entries] == [
        name for name, entry in METHODS.items() if "classification" in entry.tasks
    ]
    assert len(entries) >= 13
    assert {entry["name"]: entry["total"] for entry in entries}["linear_probe"] == 85_798_656 + 769 * 8
    entries = printed("methods", "--classes", 1, "--json", call=fedpeft)
    assert {entry["task"] for entry in entries} == {"segmentation"}


def test_methods_change_with_rank_and_task(fedpeft):
    def entries(*options):
        return printed("methods", "--backbone", "sam_tiny", *options, "--json", call=fedpeft)

    usual, wide = (
        {entry["name"]: entry["trainable"] for entry in entries(*options)} for options in ([], ["--rank", 16])
    )
    assert wide["lora_ft"] == 2 * usual["lora_ft"]
    assert {entry["task"] for entry in entries("--task", "classification")} == {"classification"}


def test_methods_table_is_complete(fedpeft):
    code, out, _ = fedpeft("methods", "--backbone", "sam_tiny")
    assert code == 0
    assert all(name in out for name in METHODS)


def test_job_list(fedpeft):
    entries = printed("job", "list", "--json", call=fedpeft)
    assert {entry["name"]: entry["run"] for entry in entries} == {
        name: entry.run.to_dict() for name, entry in JOBS.items()
    }
    code, out, _ = fedpeft("job", "list")
    assert code == 0 and all(name in out for name in JOBS)


def files(folder):
    return {str(f.relative_to(folder)): json.loads(f.read_text()) for f in folder.rglob("*") if f.is_file()}


def test_job_render_writes_all_jobs(fedpeft, tmp_path):
    code, out, _ = fedpeft("job", "render", "--out", tmp_path)
    assert code == 0
    assert sorted(out.split()) == sorted(str(tmp_path / name) for name in JOBS)
    for name, entry in JOBS.items():
        assert files(tmp_path / name) == render(entry)


def test_a_changed_job_has_a_name_of_its_own(fedpeft, tmp_path):
    change = ["--rounds", 3, "--classes", 4, "--min-sites", 5]
    failed(*fedpeft("job", "render", "flap_sam_folder", *change, "--out", tmp_path), "--name", "flap_sam_folder")
    assert list(tmp_path.iterdir()) == []
    assert fedpeft("job", "render", "flap_sam_folder", *change, "--name", "mine", "--out", tmp_path)[0] == 0
    found = files(tmp_path / "mine")
    assert [folder.name for folder in tmp_path.iterdir()] == ["mine"]
    assert (found["meta.json"]["name"], found["meta.json"]["min_clients"]) == ("mine", 5)
    text = json.dumps(found["app/config/config_fed_client.json"])
    assert '"rounds": 3' in text and '"classes": 4' in text


def test_all_jobs_cannot_have_one_name(fedpeft, tmp_path):
    """Each would be written over the one before."""
    failed(*fedpeft("job", "render", "--rounds", 3, "--name", "mine", "--out", tmp_path), "--name")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rounds", 0), ("--classes", 0), ("--image-size", 33), ("--min-sites", 0), ("--min-sites", -1), ("--stride", 9)],
)
def test_a_job_out_of_range_is_refused_by_field(fedpeft, tmp_path, option, value):
    code, out, err = fedpeft("job", "render", "flap_sam_folder", option, value, "--name", "mine", "--out", tmp_path)
    failed(code, out, err, option[2:].split("-")[0], value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--run", "{absent}", "--data", "{data}"],
        ["evaluate", "--run", "{run}", "--data", "{absent}"],
        ["evaluate", "--run", "{run}", "--data", "{data}", "--checkpoint", "{absent}"],
        ["evaluate", "--run", "{run}", "--data", "{data}", "--site", "{absent}"],
        ["infer", "--run", "{absent}", "--image", "{image}", "--out", "{out}/mask.nii.gz"],
        ["infer", "--run", "{run}", "--image", "{absent}.nii.gz", "--out", "{out}/mask.nii.gz"],
        ["compare", "--data", "{absent}", "--out", "{out}"],
        ["data", "check", "{absent}"],
    ],
)
def test_what_is_not_there_is_named(fedpeft, finished, small_phantom, tmp_path, arguments):
    image = small_phantom / "site-1" / "case-01" / "image.nii.gz"
    names = {
        "absent": tmp_path / "absent",
        "run": finished.path,
        "data": small_phantom,
        "image": image,
        "out": tmp_path,
    }
    failed(*fedpeft(*(argument.format(**names) for argument in arguments)), "absent")
    assert list(tmp_path.iterdir()) == []


def test_several_runs_are_refused(fedpeft, small_phantom, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    failed(*fedpeft("evaluate", "--run", tmp_path, "--data", small_phantom), tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("content", ["{}", "{", '{"run": {"method": "flap_sam"}}'])
def test_a_damaged_run_json_is_named(fedpeft, small_phantom, tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    failed(*fedpeft("evaluate", "--run", tmp_path, "--data", small_phantom), tmp_path / "run.json")


def test_another_checkpoint_is_refused(fedpeft, finished, small_phantom, tmp_path):
    (tmp_path / "other.pth").write_bytes(b"weights")
    arguments = ["evaluate", "--run", finished.path, "--data", small_phantom, "--checkpoint", tmp_path / "other.pth"]
    failed(*fedpeft(*arguments), "other.pth", finished.description["checkpoint"]["sha256"])


def test_a_reader_that_stops_early_is_no_failure():
    command = f"{sys.executable} -m fedpeft.cli.main job schema | head -c 1"
    found = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "{", "")
