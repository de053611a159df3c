"""Files are complete or absent, and a damaged one is named."""

import os
import resource

import pytest
import torch
from disks import made_read_only, small_disk

from fedpeft.common.files import read_json, read_tensors, replace, write_json, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3.0)}


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()], ids=["full", "interrupted"])
def test_an_interrupted_write_leaves_what_was_there_and_no_other_file(tmp_path, before, fault):
    path = tmp_path / "file.txt"
    if before:
        path.write_text(before)

    def broken(file):
        file.write_text("half")
        raise fault

    with pytest.raises(type(fault)):
        replace(path, broken)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == ({"file.txt": before} if before else {})


def test_a_tensor_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS)
    with pytest.raises(AttributeError):
        write_tensors(path, {"a": "no tensor"})
    assert torch.equal(read_tensors(path)["a"], TENSORS["a"])
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_come_back_exactly_also_from_views(tmp_path):
    given = TENSORS | {"transposed": TENSORS["a"].T, "half": TENSORS["a"].bfloat16()}
    write_tensors(tmp_path / "new" / "file.safetensors", given)
    found = read_tensors(tmp_path / "new" / "file.safetensors")
    assert found.keys() == given.keys()
    assert all(torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype for key, tensor in given.items())


def test_files_are_as_readable_as_the_umask_says(tmp_path):
    umask = os.umask(0o027)
    try:
        write_json(tmp_path / "file.json", {})
    finally:
        os.umask(umask)
    assert (tmp_path / "file.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 64])
@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("file.safetensors", lambda path: write_tensors(path, TENSORS), read_tensors),
        ("file.json", lambda path: write_json(path, {"a": [1, 2]}), read_json),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, write, read, damage):
    write(tmp_path / name)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("read", [read_tensors, read_json])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="absent"):
        read(tmp_path / "absent")


@pytest.fixture
def short_files():
    """No file may grow beyond 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_too_large(folder, words):
    """Neither JSON nor tensors are half written, what stood there stays, and the message names file and remedy."""
    path, other = folder / "file.safetensors", folder / "file.json"
    write_tensors(path, TENSORS)
    write_json(other, "old")
    for write in (lambda: write_tensors(path, {"a": torch.ones(100_000)}), lambda: write_json(other, "x" * 400_000)):
        with pytest.raises(OSError, match=f"{words}.*free space.*{folder}/file"):
            write()
    assert torch.equal(read_tensors(path)["a"], TENSORS["a"]) and read_json(other) == "old"
    assert {file.name for file in folder.iterdir()} == {path.name, other.name}


def test_a_file_beyond_a_limit_is_not_half_written(tmp_path, short_files):
    assert_too_large(tmp_path, "File too large")


def test_a_full_disk_has_no_half_written_file(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as folder:
        assert_too_large(folder, "No space left on device")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as folder, made_read_only(folder):
        with pytest.raises(OSError, match=f"Read-only file system.*let this account write there.*{folder}/new"):
            write_json(folder / "new" / "file.json", {})
