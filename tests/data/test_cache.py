"""What is kept is what would be made again; what has changed, is damaged or has no room is made again."""

import logging
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from toy import LABELS, arrays

from fedpeft.config.datasets import Preprocessing
from fedpeft.data import cache as cache_module
from fedpeft.data.cache import SUFFIX, Cache, Tensors
from fedpeft.data.datalist import Case
from fedpeft.data.images.images import read_images
from fedpeft.data.volumes import stacks
from fedpeft.data.volumes.nifti import save_nifti
from fedpeft.data.volumes.normalise import Statistics
from fedpeft.data.volumes.stacks import StackData

PLAIN = Preprocessing()


class Maker:
    """Makes 4000 bytes from a number, and counts how often."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, number: int) -> Tensors:
        self.made.append(number)
        return {"a": torch.full((500,), float(number)), "b": torch.full((2000,), number, dtype=torch.uint8)}

    def ask(self, cache: Cache, *numbers: int) -> None:
        for number in numbers:
            found = cache.get(("number", number), lambda number=number: self(number))
            assert (found["a"] == number).all() and (found["b"] == number).all()
            assert found["a"].shape == (500,) and found["b"].dtype == torch.uint8


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("on_disk", [False, True])
def test_an_entry_is_made_once(tmp_path: Path, on_disk: bool) -> None:
    maker, cache = Maker(), Cache(tmp_path / "cache" if on_disk else None)
    maker.ask(cache, 1, 2, 1, 2)
    assert maker.made == [1, 2] and not cache.full
    maker.ask(Cache(tmp_path / "cache" if on_disk else None), 1)
    assert maker.made == ([1, 2] if on_disk else [1, 2, 1])


def test_types_and_shapes_come_back(tmp_path: Path) -> None:
    made = {"half": torch.randn(3, 2).bfloat16(), "none": torch.zeros(0, 3), "one": torch.tensor(7)}
    for _ in range(2):
        found = Cache(tmp_path).get(["x"], lambda: made)
        assert found.keys() == made.keys()
        assert all(torch.equal(found[key], made[key]) and found[key].dtype == made[key].dtype for key in made)


def test_another_stamp_or_part_is_another_entry(tmp_path: Path) -> None:
    maker = Maker()
    for stamp, parts in (("v1", ("a", 1)), ("v2", ("a", 1)), ("v1", ("a", "1")), ("v1", ("a1",)), ("v1", ("a", 1))):
        Cache(tmp_path, stamp).get(parts, lambda: maker(0))
    assert len(maker.made) == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_made_again_with_a_message(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    maker = Maker()
    maker.ask(Cache(tmp_path), 1)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[-9] ^= 4
    file.write_bytes({"cut": whole[:-100], "flipped": bytes(changed), "empty": b"", "text": b"no tensors"}[damage])
    with caplog.at_level(logging.WARNING):
        maker.ask(Cache(tmp_path), 1)
    assert maker.made == [1, 1]
    assert str(file) in caplog.text and "made again" in caplog.text
    assert file.read_bytes() == whole
    maker.ask(Cache(tmp_path), 1)
    assert maker.made == [1, 1]


def test_files_are_private_and_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    maker.ask(Cache(tmp_path), 1)
    (file,) = files(tmp_path)
    assert file.suffix == SUFFIX and file.stat().st_mode & 0o777 == 0o600

    def interrupted(tensors: Tensors, name: str, metadata: dict[str, str]) -> None:
        Path(name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        maker.ask(Cache(tmp_path), 2)
    assert files(tmp_path) == [file]


def test_the_disk_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    maker = Maker()
    for number in range(6):
        maker.ask(Cache(tmp_path, disk=14000), number)
        for age, file in enumerate(sorted(files(tmp_path), key=lambda file: file.stat().st_mtime)):
            # Apart from one another, whatever the file system's clock.
            cache_module.os.utime(file, (1e9 + age, 1e9 + age))
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 14000
    assert len(files(tmp_path)) == 3
    maker.ask(Cache(tmp_path), 5, 4, 3)
    assert maker.made == list(range(6))
    maker.ask(Cache(tmp_path), 2)
    assert maker.made[6:] == [2]


def test_what_a_run_uses_is_not_removed_for_more_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maker, cache = Maker(), Cache(tmp_path, memory=0, disk=9000)
    with caplog.at_level(logging.WARNING):
        maker.ask(cache, *range(8), *range(8))
    kept = {number for number in range(8) if maker.made.count(number) == 1}
    assert {0, 1} <= kept and cache.full and all(maker.made.count(number) == 2 for number in set(range(8)) - kept)
    assert caplog.text.count("the cache is full") == 1
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 9000


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    maker, cache = Maker(), Cache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        maker.ask(cache, 1, 2, 1, 2)
    assert maker.made == [1, 2] and not cache.full
    assert caplog.text.count("cannot be written") == 1 and "cache_dir" in caplog.text


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("x" * 20000)
    cache_module.os.utime(other, (0, 0))
    Maker().ask(Cache(tmp_path, disk=9000), *range(4))
    assert other.read_text() == "x" * 20000


def test_beyond_the_memory_entries_are_mapped_from_files_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module.tempfile, "tempdir", str(tmp_path))
    maker, cache = Maker(), Cache(memory=5000)
    decoded = cache.hold({"x": torch.arange(5000)})
    maker.ask(cache, 1, 2, 1, 2)
    assert maker.made == [1, 2] and not cache.full
    assert torch.equal(decoded["x"], torch.arange(5000))
    assert not list(tmp_path.iterdir())


def test_no_space_anywhere_changes_no_result() -> None:
    maker, cache = Maker(), Cache(memory=0, disk=0)
    maker.ask(cache, 1, 2, 1)
    assert maker.made == [1, 2, 1] and cache.full
    tensors = {"x": torch.ones(3)}
    assert cache.hold(tensors) is tensors


def _ask_many(folder: str) -> int:
    maker = Maker()
    for _ in range(4):
        maker.ask(Cache(Path(folder), disk=30000), *range(10))
    return len(maker.made)


def test_processes_share_a_folder(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        made = pool.map(_ask_many, [str(tmp_path)] * 4, chunksize=1)
    assert all(count <= 40 for count in made)
    assert {file.suffix for file in files(tmp_path)} == {SUFFIX}
    assert _ask_many(str(tmp_path)) <= 40


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are read from their files."""
    read, real = [], stacks.read_volume
    monkeypatch.setattr(stacks, "read_volume", lambda case, *rest: read.append(case.case) or real(case, *rest))
    return read


def sampled(
    cases: list[Case], folder: Path | None, preprocessing: Preprocessing = PLAIN, edge: int = 16
) -> torch.Tensor:
    data = StackData(cases, LABELS, preprocessing, edge, batch=2, cache=Cache(folder))
    return torch.cat([images for images, _ in data.epoch(3)])


def test_volumes_are_read_once_for_all_runs(make_case: Callable[..., Case], tmp_path: Path, counted: list[str]) -> None:
    cases = [make_case("one"), make_case("two")]
    plain = sampled(cases, None)
    assert counted == ["one", "two"]
    first, again = (sampled(cases, tmp_path / "cache") for _ in range(2))
    assert counted == ["one", "two"] * 2
    assert torch.equal(first, plain) and torch.equal(again, plain)
    # The same files elsewhere, under another name.
    moved = make_case("one", folder=tmp_path / "elsewhere")
    sampled([replace(moved, case="three")], tmp_path / "cache")
    assert counted == ["one", "two"] * 2


STATISTICS = Statistics(200.0, 90.0, 2, PLAIN.rule)


@pytest.mark.parametrize("changed", ["image", "label", "preprocessing", "statistics", "edge"])
def test_volumes_are_read_anew_when_anything_has_changed(
    make_case: Callable[..., Case], tmp_path: Path, counted: list[str], changed: str
) -> None:
    case, preprocessing, edge = make_case("one"), PLAIN, 16
    before = sampled([case], tmp_path / "cache")
    if changed in ("image", "label"):
        array = arrays((9, 8, 7), 5)[changed == "label"].copy()
        array[3, 4, 2] = 2
        path = getattr(case, changed)
        save_nifti(path, with_voxels(path, array))
    elif changed == "preprocessing":
        preprocessing = PLAIN.model_copy(update={"clip": (-0.1, 0.1)})
    elif changed == "statistics":
        case = replace(case, statistics=STATISTICS)
    else:
        edge = 24
    after = sampled([case], tmp_path / "cache", preprocessing, edge)
    assert counted == ["one", "one"]
    assert torch.equal(after, sampled([case], None, preprocessing, edge))
    assert changed == "label" or after.shape != before.shape or not torch.equal(after, before)


def with_voxels(path: Path, array: np.ndarray) -> nibabel.Nifti1Image:
    """The file's image with other voxels."""
    return nibabel.Nifti1Image(array, nibabel.load(path).affine)


def test_images_are_decoded_once_for_all_runs(image_table: Path, tmp_path: Path) -> None:
    paths = sorted(image_table.parent.rglob("*.png"))[:3]
    cases = [Case(path.stem, path) for path in paths]
    plain = read_images(cases, 8)
    asked: list[int] = []
    for _ in range(2):
        found = read_images(cases, 8, lambda: asked.append(0), Cache(tmp_path / "cache"))
        assert torch.equal(found, plain)
    # Hashed and read the first time, hashed the second.
    assert len(asked) == 9
    paths[0].write_bytes(paths[1].read_bytes())
    changed = read_images(cases, 8, cache=Cache(tmp_path / "cache"))
    assert torch.equal(changed[0], plain[1]) and torch.equal(changed[1:], plain[1:])
