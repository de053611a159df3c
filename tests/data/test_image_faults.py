"""Everything that may be wrong with images is listed as a whole, and nothing is written."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from photos import COLUMNS, TABLE, cut, lines_of, write_csv, write_image, write_tree

from fedpeft.common.faults import FaultError
from fedpeft.data.datalist import SPLITS
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.prepare import staging
from fedpeft.data.prepare.pipeline import Choices, prepare
from fedpeft.data.prepare.writer import write_folder
from fedpeft.data.sources.image_table import find_in_table
from fedpeft.data.sources.image_tree import TREES, find_in_tree

SOURCE = Path("script")
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "p000": (cut, "a/p000: .*p000.png: cannot be read"),
    "p001": (lambda path: path.write_text("text"), "b/p001: .*p001.png: cannot be read"),
    "p002": (Path.unlink, "a/p002: .*p002.png: not found"),
}
LINES = {
    "/etc/passwd": (("/etc/passwd", "nv", "a", ""), "line 81: path is '/etc/passwd', expected one relative"),
    "../all.csv": (("../all.csv", "nv", "a", ""), "line 82: path is '../all.csv'"),
    "dx": (("images/p007.png", "scc", "a", ""), r"line 83: .*label is 'scc', expected mel, nv; see --labels"),
    "twice": (("images/p004.png", "nv", "a", ""), "line 84: images/p004.png is in line 6 already"),
    "site": (("images/new.png", "nv", "a/b", ""), "new.png: site is 'a/b', expected letters"),
}


def test_all_faults_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"images": 80})
    write_image(source / "images" / "new.png")
    for name, (damage, _) in FAULTS.items():
        damage(source / "images" / f"{name}.png")
    lines = [line for line in TABLE if "p007" not in line[0]] + [line for line, _ in LINES.values()]
    table = write_csv(source / "all.csv", ("file", "dx", "centre", "lesion"), lines)
    found = find_in_table(source, table, COLUMNS, ["mel", "nv"])
    with pytest.raises(FaultError) as caught:
        prepare(found, tmp_path / "out", Choices(partition="iid", sites=2))
    expected = [text for _, text in (*FAULTS.values(), *LINES.values())]
    expected.append("a/b: 1 cases or groups, expected at least 3 to split")
    assert len(caught.value.faults) == len(expected)
    for text in expected:
        assert len([fault for fault in caught.value.faults if re.search(text, fault)]) == 1, text
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(("tree", "folders", "text"), [
    (TREES[3], {"a/train/nv": 1, "a/tset/mel": 2}, "source/a/tset/mel: 2 images: split is 'tset', expected train"),
    (TREES[0], {"a/nv": 5, "a/mel/old": 2, "a": 1}, "source/a/mel/old: 2 images: expected {site}/{class}/<image>"),
    (TREES[0], {"site 1/nv": 4, "site 1/mel": 4}, "site is 'site 1', expected letters"),
    (TREES[0], {"a/nv": 1, "a/mel": 1}, "a: 2 cases or groups, expected at least 3 to split"),
    (TREES[3], {"a/train/nv": 1, "b/test/mel": 1}, "b: no training case"),
])  # fmt: skip
def test_faults_of_trees(tree: str, folders: dict[str, int], text: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", folders)
    with pytest.raises(FaultError) as caught:
        prepare(find_in_tree(source, tree), tmp_path / "out", Choices())
    assert any(text in fault for fault in caught.value.faults), caught.value.faults
    assert not (tmp_path / "out").exists()


def test_what_is_asked_for_must_make_sense(image_table: Path, tmp_path: Path) -> None:
    found = find_in_table(image_table.parent, image_table, COLUMNS)
    with pytest.raises(ValueError, match="has no splits, of which --validation takes a share"):
        prepare(found, tmp_path / "out", Choices(validation=0.1))
    with pytest.raises(ValueError, match="seed is -1"):
        prepare(found, tmp_path / "out", Choices(seed=-1))
    with pytest.raises(ValueError, match="training cases or groups for 99 sites"):
        prepare(found, tmp_path / "out", Choices(partition="iid", sites=99))
    with pytest.raises(ValueError, match="tree is '{class}/{site}'"):
        find_in_tree(image_table.parent, "{class}/{site}")
    with pytest.raises(FileNotFoundError, match="no image found"):
        find_in_tree(write_csv(tmp_path / "bare" / "t.csv", ("image",), []).parent)
    assert not (tmp_path / "out").exists()


def test_a_script_chooses_sites_and_splits(images: list[FoundCase], tmp_path: Path) -> None:
    prepared = write_folder(Found(SOURCE, "images", ("x", "y"), images, notes=["mine"]), tmp_path / "out")
    assert [(site.name, [len(site.splits[split]) for split in SPLITS]) for site in prepared.sites] == [
        ("a", [2, 1, 1]), ("b", [2, 1, 1])
    ]  # fmt: skip
    assert [(c.case, c.target, c.group) for c in prepared.sites[1].splits["test"]] == [("c7", 1, "g1")]
    assert lines_of(tmp_path / "out" / "lesion_clean_test.csv") == [{"site": "a", "case": "c3"}]
    assert prepared.notes == [
        "mine", "lesion_clean_test.csv: 1 of 2 test cases show a lesion or patient that no training or validation case "
        "shows; 1 share one with them, of 0 it is unknown",
    ]  # fmt: skip
    with pytest.raises(FileExistsError, match="not empty"):
        write_folder(Found(SOURCE, "images", ("x", "y"), images), tmp_path / "out")


def test_a_site_left_out_of_training_has_test_cases_alone(images: list[FoundCase], tmp_path: Path) -> None:
    left_out = [replace(image, split="test") if image.site == "b" else image for image in images]
    sites = write_folder(Found(SOURCE, "images", ("x", "y"), left_out), tmp_path / "out").sites
    assert [len(sites[1].splits[split]) for split in SPLITS] == [0, 0, 4]


@pytest.mark.parametrize(("change", "text"), [
    ({"split": "dev"}, "split is 'dev'"), ({"split": ""}, "split is ''"), ({"site": ".."}, "site is '..'"),
    ({"target": 2}, "label is 2, expected 0 to 1"), ({"case": "../c"}, "case is '../c'"),
    ({"case": "c1"}, "is called a/c1, as is"),
])  # fmt: skip
def test_a_script_must_obey_the_same_rules(change: dict, text: str, images: list[FoundCase], tmp_path: Path) -> None:
    with pytest.raises(FaultError) as caught:
        write_folder(Found(SOURCE, "images", ("x", "y"), [replace(images[0], **change), *images[1:]]), tmp_path / "out")
    assert [text in fault for fault in caught.value.faults] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_data_set_of_volumes_or_nothing_at_all_is_refused(images: list[FoundCase], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data set ixi is for segmentation"):
        write_folder(Found(SOURCE, "ixi", ("x", "y"), images), tmp_path / "out")
    with pytest.raises(FaultError, match="no case, expected at least one"):
        write_folder(Found(SOURCE, "images", ("x", "y")), tmp_path / "out")


def test_a_full_disk_is_noticed_before_anything_is_written(
    images: list[FoundCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(FaultError, match="out: 0.00 GB are needed, 0.00 GB are free"):
        write_folder(Found(SOURCE, "images", ("x", "y"), images), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
