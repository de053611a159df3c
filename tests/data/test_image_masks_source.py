"""Folders of images and masks to folders of sites."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import cut, lines_of, write_csv, write_image
from PIL import Image
from sources import call

from fedpeft.common.faults import FaultError
from fedpeft.data.check import check
from fedpeft.data.datalist import SPLITS, Case, read_sites
from fedpeft.data.image_masks.masks import read_mask
from fedpeft.data.images.images import read_image
from fedpeft.data.sources.image_masks import MaskTree, find_image_masks

SIZE = (8, 11)


def write_pairs(
    folder: Path,
    names: list[str],
    images: str = "images",
    masks: str = "masks",
    ending: str = ".jpg",
    suffix: str = "",
    values: tuple[int, ...] = (0, 255),
) -> None:
    """Images of a few pixels and masks with the values in turn."""
    for name in names:
        write_image(folder / images / f"{name}{ending}", name)
        (folder / masks).mkdir(parents=True, exist_ok=True)
        mask = np.resize(np.array(values, np.uint8), SIZE)
        Image.fromarray(mask).save(folder / masks / f"{name}{suffix}.png")


def prepare(source: Path, out: Path, *words: object) -> dict[str, tuple[int, ...]]:
    """Cases of each split by site."""
    assert call("prepare", "image_masks", "--source", source, "--out", out, *words) == 0
    return {site.name: tuple(len(site.splits[split]) for split in SPLITS) for site in read_sites(out)}


def all_cases(out: Path) -> dict[str, Case]:
    return {
        case.case: case for site in read_sites(out) for cases in site.splits.values() for case in cases
    }  # fmt: skip


def names(count: int, first: int = 0) -> list[str]:
    return [f"ISIC_{number:07d}" for number in range(first, first + count)]


def test_sites_with_folders_of_their_own(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_pairs(source / "north", names(10), suffix="_segmentation")
    write_pairs(source / "south", names(5, 10), ending=".PNG", values=(0, 1))
    (source / "north" / "images" / "ATTRIBUTION.txt").touch()
    (source / ".cache" / "images").mkdir(parents=True)
    assert prepare(source, out) == {"north": (7, 1, 2), "south": (3, 1, 1)}
    for name, case in all_cases(out).items():
        folder = source / case.site / "images"
        assert case.image.read_bytes() == next(folder.glob(f"{name}.*")).read_bytes()
        assert case.image == out / case.site / "images" / f"{name}{'.jpg' if case.site == 'north' else '.png'}"
        assert case.label == out / case.site / "masks" / f"{name}.png"
        np.testing.assert_array_equal(read_mask(case.label), np.resize([0, 1], SIZE))
        assert tuple(read_image(case.image).shape) == (3, *SIZE)
    assert read_sites(out)[0].labels == {0: "background", 1: "target"}
    assert read_sites(out)[0].task == "image_segmentation"
    assert check(out).faults == [] and check(out).warnings == []


@pytest.mark.parametrize(("words", "values", "labels", "expected"), [
    (["--labels", "255=lesion"], (0, 255), ["lesion"], [0, 1]),
    (["--labels", "1=disc,2=cup"], (0, 1, 2), ["disc", "cup"], [0, 1, 2]),
    (["--labels", "128=rim,0=cup", "--background", 255], (255, 128, 0), ["rim", "cup"], [0, 1, 2]),
    (["--labels", "10=a,20=b,30=a"], (0, 10, 20, 30), ["a", "b"], [0, 1, 2, 1]),
])  # fmt: skip
def test_values_become_indices(
    words: list[Any], values: tuple[int, ...], labels: list[str], expected: list[int], tmp_path: Path
) -> None:
    write_pairs(tmp_path / "source", names(3), values=values)
    prepare(tmp_path / "source", tmp_path / "out", *words)
    (site,) = read_sites(tmp_path / "out")
    assert site.labels == dict(enumerate(["background", *labels]))
    for case in all_cases(tmp_path / "out").values():
        np.testing.assert_array_equal(read_mask(case.label), np.resize(expected, SIZE))


def test_two_folders_and_a_table_of_sites_splits_and_lesions(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_pairs(source, names(20), "part_1", "masks_of_all")
    write_pairs(source, names(10, 20), "part_2", "masks_of_all")
    lines = [(name, f"L{number // 3}", "ab"[number % 2]) for number, name in enumerate(names(30))]
    table = write_csv(tmp_path / "t.csv", ("image_id", "lesion_id", "site"), lines)
    words: list[object] = ["--images", "part_1", "--images", "part_2", "--masks", "masks_of_all", "--table", table]
    words += ["--case-column", "image_id", "--group-column", "lesion_id"]
    found = prepare(source, tmp_path / "out", *words)
    assert set(found) == {"a", "b"} and sum(map(sum, found.values())) == 30
    split_of: dict[str, set[str]] = {}
    by_name = {line["case"]: line["split"] for line in lines_of(tmp_path / "out" / "split.csv")}
    for name, lesion, _ in lines:
        split_of.setdefault(lesion, set()).add(by_name[name])
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {case.group for case in all_cases(tmp_path / "out").values()} == set(split_of)
    assert (tmp_path / "out" / "lesion_clean_test.csv").exists()
    dealt = prepare(source, tmp_path / "dealt", *words, "--sites", 3, "--seed", 2)
    assert set(dealt) == {"site-1", "site-2", "site-3"} and sum(map(sum, dealt.values())) == 30


def test_all_faults_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_pairs(source, names(9))
    write_image(source / "images" / "ISIC_0000000.png")
    (source / "masks" / "ISIC_0000001.png").unlink()
    (source / "masks" / "ISIC_0000002_segmentation.png").write_bytes(b"")
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(source / "masks" / "other.png")
    cut(source / "images" / "ISIC_0000003.jpg")
    cut(source / "masks" / "ISIC_0000004.png")
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(source / "masks" / "ISIC_0000005.png")
    Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).save(source / "masks" / "ISIC_0000006.png")
    cut(source / "images" / "ISIC_0000007.jpg")
    cut(source / "masks" / "ISIC_0000007.png")
    with pytest.raises(FaultError) as caught:
        prepare(source, tmp_path / "out")
    expected = ["ISIC_0000000 has 2 images: ISIC_0000000.jpg, ISIC_0000000.png, expected 1",
                "ISIC_0000001 has 0 masks, expected 1",
                "ISIC_0000002 has 2 masks: ISIC_0000002.png, ISIC_0000002_segmentation.png, expected 1",
                "other.png: mask without an image",
                "ISIC_0000003.jpg: cannot be read as JPEG or PNG", "ISIC_0000004.png: cannot be read as PNG",
                "ISIC_0000005.png: label values [7] are not among 0, 1, 255",
                "ISIC_0000006.png: has 8 x 11 pixels, its image",
                "ISIC_0000007.jpg: cannot be read", "ISIC_0000007.png: cannot be read as PNG"]  # fmt: skip
    assert len(caught.value.faults) == len(expected)
    for text, fault in zip(expected, caught.value.faults, strict=True):
        assert text in fault
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "text"), [
    (["--images", "photos"], "neither photos nor <site>/photos in it; see --images"),
    (["--masks", "../masks"], "folder is '../masks', expected a path within"),
    (["--labels", "0=target"], "--background is 0, expected a value from 0 to 255 that is not a label's"),
    (["--background", 300], "--background is 300, expected"),
    (["--site-column", "where"], "--site-column names a column; expected --table CSV with it"),
    (["--table", "{source}/none.csv"], "none.csv: not found"),
    (["--table", "{source}/t.csv", "--site-column", "where"], "no column 'where'"),
    (["--table", "{source}/t.csv"], "has the columns case, hospital, expected case and any of site, split, group"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(words: list[Any], text: str, tmp_path: Path) -> None:
    write_pairs(tmp_path, names(4))
    write_csv(tmp_path / "t.csv", ("case", "hospital"), [(name, "a") for name in names(4)])
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        prepare(tmp_path, tmp_path / "out", *(str(word).format(source=tmp_path) for word in words))
    assert text in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", ["1", "x=a", "1=a,1=b", "256=a", "-1=a", "1="])
def test_labels_that_mean_nothing_are_refused(labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        prepare(tmp_path, tmp_path / "out", f"--labels={labels}")
    assert "expected" in capsys.readouterr().err


def test_a_source_without_images(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(FileNotFoundError, match="no image found in it, expected .jpg, .jpeg, .png"):
        find_image_masks(MaskTree(tmp_path))
