"""The site file: expanded, validated, and obeyed."""

import json
import os
import re
import time
from hashlib import sha256

import pytest

from fedpeft.config.run import make_run
from fedpeft.training.client.permit import PERMIT_ALL
from fedpeft.training.client.site_file import NAME, STALE_DAYS, Checkpoint, read_site_file, register, run_state

FULL = {
    "version": 1,
    "datasets": {"phantom": "/data/{site}/datalist.json"},
    "checkpoints": {"sam_vit_b": {"path": "/weights/{site}/sam.pth", "sha256": "ab"}},
    "device": "cuda:0",
    "threads": 2,
    "state_dir": "/state/{site}",
    "cache_dir": "/cache",
    "permit": {"methods": ["flap_sam"], "max_upload_bytes": 1000},
}
# As commit 959c00f wrote them: by --register, and by hand.
OLD = (
    '{"version": 1, "datasets": {"phantom": "/data/phantom/{site}/datalist.json"}, "checkpoints": {}, "device": "cpu", '
    '"threads": 1, "state_dir": "/poc/state"}',
    json.dumps(FULL | {"compile": True, "save_memory": False}),
)


@pytest.fixture
def read(tmp_path):
    """A function that writes values and reads them as the site ``north``."""

    def written(values):
        (tmp_path / NAME).write_text(json.dumps(values))
        return read_site_file(tmp_path / NAME, "north")

    return written


def test_the_client_name_is_put_in_and_values_are_kept(read):
    found = read(FULL)
    assert str(found.datalist("phantom")) == "/data/north/datalist.json"
    assert found.checkpoints["sam_vit_b"] == Checkpoint(path="/weights/north/sam.pth", sha256="ab")
    assert (found.state_dir, found.cache_dir, found.device, found.threads) == ("/state/north", "/cache", "cuda:0", 2)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"version": 2}, ['"version": 1']),
        ({"version": None}, ['"version": 1']),
        ({"colour": "red"}, ["colour", "datasets"]),
        ({"path": "/elsewhere"}, ["unknown field 'path'"]),
        ({"threads": "2"}, ["threads", "'2'", "int"]),
        ({"threads": True}, ["threads", "True", "int"]),
        ({"datasets": []}, ["datasets", "dict"]),
        ({"device": 0}, ["device", "str"]),
        ({"datasets": {"phantom": "data/datalist.json"}}, ["datasets.phantom", "absolute"]),
        ({"datasets": {"my data": "data/datalist.json"}}, ["my data", "absolute"]),
        ({"checkpoints": {"sam_vit_b": {"path": "sam.pth"}}}, ["sam_vit_b.path", "absolute"]),
        ({"state_dir": "state"}, ["state_dir", "absolute"]),
        ({"cache_dir": "{site}/cache"}, ["cache_dir", "north/cache", "absolute"]),
        # What is inside: a fault there must not surface as a TypeError in a round.
        ({"datasets": {"phantom": 5}}, ["datasets.phantom", "5"]),
        ({"checkpoints": {"sam_vit_b": "/weights/sam.pth"}}, ["checkpoints.sam_vit_b"]),
        ({"checkpoints": {"sam_vit_b": {"file": "/weights/sam.pth"}}}, ["checkpoints.sam_vit_b", "path"]),
        ({"threads": 0}, ["threads", "0"]),
        # A permission that is misspelt or of another type would permit what the site meant to forbid.
        ({"permit": {"method": ["flap_sam"]}}, ["permit", "method"]),
        ({"permit": {"methods": "flap_sam"}}, ["permit.methods", "list"]),
        ({"permit": {"max_upload_bytes": "1000"}}, ["permit.max_upload_bytes", "int"]),
        ({"permit": {"max_upload_bytes": -1}}, ["permit.max_upload_bytes is -1", "0"]),
        ({"permit": ["flap_sam"]}, ["permit is ['flap_sam']", "methods, max_upload_bytes"]),
        ({"threads": 0, "permit": {"method": ["flap_sam"]}}, ["threads is 0", "; unknown field 'method' in permit"]),
    ],
)
def test_a_faulty_file_is_refused_by_name_and_field(read, tmp_path, changes, parts):
    with pytest.raises(ValueError) as refusal:
        read(FULL | changes)
    assert all(part in str(refusal.value) for part in [str(tmp_path / NAME), *parts]), refusal.value
    assert "\n" not in str(refusal.value) and "pydantic" not in str(refusal.value)


@pytest.mark.parametrize(("text", "part"), [("[]", "JSON object"), ("{", "not JSON")])
def test_what_is_no_object_is_refused(tmp_path, text, part):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ValueError, match=part):
        read_site_file(tmp_path / NAME, "north")


def test_a_missing_file_says_who_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="--register"):
        read_site_file(tmp_path / NAME, "north")


def test_an_unknown_data_set_lists_those_there(read):
    with pytest.raises(ValueError, match=r"'kits19'.*there: phantom"):
        read(FULL).datalist("kits19")


def test_a_shipped_backbone_needs_no_entry(read):
    assert read({"version": 1}).checkpoint(make_run("flap_sam", "folder", "sam_tiny")).is_file()


def test_a_backbone_without_entry_says_what_to_add(read):
    with pytest.raises(ValueError, match=r"sam_vit_b.*\"path\""):
        read({"version": 1}).checkpoint(make_run("flap_sam", "folder", "sam_vit_b"))


def test_the_hash_of_the_checkpoint_is_checked_and_both_are_named(read, tmp_path):
    file = tmp_path / "sam.pth"
    entry = {"path": str(file), "sha256": "ab" * 32}
    values = {"version": 1, "checkpoints": {"sam_vit_b": entry}}
    with pytest.raises(FileNotFoundError, match=r"sam\.pth"):
        read(values).checkpoint(make_run("flap_sam", "folder", "sam_vit_b"))
    file.write_bytes(b"weights")
    found = sha256(b"weights").hexdigest()
    with pytest.raises(ValueError, match=f"{found}.*{'ab' * 32}"):
        read(values).checkpoint(make_run("flap_sam", "folder", "sam_vit_b"))
    entry["sha256"] = found
    assert read(values).checkpoint(make_run("flap_sam", "folder", "sam_vit_b")) == file
    del entry["sha256"]
    assert read(values).checkpoint(make_run("flap_sam", "folder", "sam_vit_b")) == file


@pytest.mark.parametrize(
    ("permit", "method", "size", "part"),
    [
        (PERMIT_ALL, "full_ft", 10**12, None),
        ({"methods": ["lora"], "max_upload_bytes": None}, "lora", 10**12, None),
        (FULL["permit"], "flap_sam", 1000, None),
        (FULL["permit"], "flap_sam", 1001, "1,001 bytes.*1,000"),
        (FULL["permit"], "full_ft", 1, "'full_ft'.*flap_sam"),
        ({"methods": []}, "flap_sam", 1, 'permits: none; .* add "flap_sam" to "methods"'),
        ({"methods": ["flap_sam"], "max_upload_bytes": 0}, "flap_sam", 1, "1 bytes.*raise"),
        # What is absent is not permitted, and the refusal has the line that permits it.
        ({}, "flap_sam", 1, '"permit": {"methods": \\["flap_sam"\\], "max_upload_bytes": 10000000} in the site'),
        ({"max_upload_bytes": 5}, "flap_sam", 1, '{"methods": \\["flap_sam"\\], "max_upload_bytes": 5}'),
        (
            {"methods": ["lora", "flap_sam"]},
            "flap_sam",
            1,
            '{"methods": \\["lora", "flap_sam"\\], "max_upload_bytes": 10000000} in .*, or null for any size',
        ),
    ],
)
def test_what_the_site_permits(read, tmp_path, permit, method, size, part):
    site = read({"version": 1, "permit": permit})
    if part is None:
        return site.admit(method, size)
    with pytest.raises(ValueError, match=part) as refusal:
        site.admit(method, size)
    assert str(tmp_path) not in str(refusal.value)


def test_a_file_without_permit_permits_nothing(read):
    with pytest.raises(ValueError, match="the site permits no method; if it should, write"):
        read({"version": 1}).admit("flap_sam", 1)


def test_the_line_of_a_refusal_is_one_that_permits(read):
    with pytest.raises(ValueError) as refusal:
        read({"version": 1}).admit("flap_sam", 1000)
    (line,) = re.findall(r'"permit": \{.*?\}', str(refusal.value))
    read({"version": 1} | json.loads(f"{{{line}}}")).admit("flap_sam", 1000)


@pytest.mark.parametrize("line", OLD)
def test_a_file_of_the_first_version_is_still_read(read, line):
    assert read(json.loads(line)).datalist("phantom").name == "datalist.json"


@pytest.fixture
def aged(tmp_path):
    """A function that makes a folder with a file, both untouched for some days."""

    def made(name, days):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
        for path in (tmp_path / name / "file", tmp_path / name):
            os.utime(path, (time.time() - 86400 * days,) * 2)
        return tmp_path / name

    return made


OWN, OTHER = "0" * 32, "f" * 32


@pytest.mark.parametrize(
    ("name", "days", "stays"),
    [
        (OTHER, STALE_DAYS + 1, False),
        (OTHER, STALE_DAYS - 1, True),
        (OWN, STALE_DAYS + 1, True),
        # The folder may be shared: only what is named as a run's state can be one.
        ("photographs", STALE_DAYS + 1, True),
    ],
)
def test_only_state_of_runs_that_nobody_touched_is_removed(read, tmp_path, aged, name, days, stays):
    folder = aged(name, days)
    assert run_state(read({"version": 1, "state_dir": str(tmp_path)}), OWN) == tmp_path / OWN
    assert folder.exists() == stays


def test_state_needs_a_place(read):
    with pytest.raises(ValueError, match="state_dir"):
        run_state(read({"version": 1}), OWN)


def test_register_makes_a_file_that_a_site_can_read(tmp_path):
    path = register(tmp_path / "workspace", "phantom", tmp_path / "phantom")
    site = read_site_file(path, "north")
    assert site.datalist("phantom") == tmp_path / "phantom" / "north" / "datalist.json"
    site.admit("full_ft", 10**12)


def test_register_keeps_other_entries(tmp_path):
    path = tmp_path / "local" / NAME
    path.parent.mkdir()
    path.write_text(json.dumps(FULL))
    register(tmp_path, "lgg", tmp_path / "lgg")
    expected = FULL["datasets"] | {"lgg": f"{tmp_path}/lgg/{{site}}/datalist.json"}
    assert json.loads(path.read_text()) == FULL | {"datasets": expected}
    assert list(path.parent.iterdir()) == [path]


def test_register_enters_into_a_file_without_data_sets(tmp_path):
    path = tmp_path / "local" / NAME
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 1, "device": "cuda:0"}))
    register(tmp_path, "lgg", tmp_path / "lgg")
    assert read_site_file(path, "north").datalist("lgg") == tmp_path / "lgg" / "north" / "datalist.json"


@pytest.mark.parametrize("kit", [None, "fed_client.json", "fed_server.json"])
def test_register_opens_a_simulators_workspace_and_never_a_kit(tmp_path, kit):
    file = tmp_path / "local" / NAME
    file.parent.mkdir()
    file.write_text('{"version": 1}')
    if kit:
        (tmp_path / "startup").mkdir()
        (tmp_path / "startup" / kit).touch()
    register(tmp_path, "lgg", tmp_path / "lgg")
    assert ("permit" in json.loads(file.read_text())) == (kit is None)


def test_register_leaves_a_file_it_cannot_replace(tmp_path, monkeypatch):
    path = register(tmp_path, "phantom", tmp_path / "phantom")
    before = path.read_text()

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr("fedpeft.common.files.os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        register(tmp_path, "lgg", tmp_path / "lgg")
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]
