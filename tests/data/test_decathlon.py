"""Tasks of the Medical Segmentation Decathlon: generated ones, and the hippocampus where it is at hand."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from photos import lines_of, write_csv
from sources import PROSTATE_AFFINE, call, stored, volume, write

from fedpeft.common.faults import FaultError
from fedpeft.data.check import check
from fedpeft.data.datalist import SPLITS, read_sites
from fedpeft.data.sources.decathlon import find_decathlon

CHANNELS = ("FLAIR", "T1w", "t1gd")


def content(cases: list[str], channels: tuple[str, ...] = ("MRI",), **changes: Any) -> dict[str, Any]:
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in cases]
    return {
        "name": "Toy", "tensorImageSize": "3D", "modality": {str(n): name for n, name in enumerate(channels)},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "numTraining": len(pairs),
        "training": pairs, "test": ["./imagesTs/toy_900.nii.gz"],
    } | changes  # fmt: skip


def write_task(root: Path, count: int = 12, channels: tuple[str, ...] = ("MRI",)) -> Path:
    """A task as its archive unpacks; with several channels, each is the first plus a hundred times its number."""
    names = [f"toy_{number:03d}" for number in range(count)]
    for name in names:
        image, label = volume(name, (6, 7, 5), 2)
        if len(channels) > 1:
            image = np.stack([image + 100 * number for number in range(len(channels))], axis=-1).astype(np.int16)
        write(root / "imagesTr" / f"{name}.nii.gz", image, PROSTATE_AFFINE)
        write(root / "labelsTr" / f"{name}.nii.gz", label, PROSTATE_AFFINE)
        (root / "imagesTr" / f"._{name}.nii.gz").touch()
    (root / "dataset.json").write_text(json.dumps(content(names, channels)))
    return root


def test_sites_at_random_with_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_task(tmp_path / "source")
    words = ["prepare", "decathlon", "--source", source, "--sites", 3]
    splits = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert call(*words, "--seed", seed, "--out", tmp_path / name) == 0
        splits[name] = (tmp_path / name / "split.csv").read_text()
    assert splits["a"] == splits["b"] != splits["c"]
    out = capsys.readouterr().out
    assert "1 image without a label left out" in out
    assert "12 cases dealt out to 3 sites (iid, seed 1); their splits were drawn before" in out
    sites = read_sites(tmp_path / "a")
    assert [site.name for site in sites] == ["site-1", "site-2", "site-3"]
    assert sites[0].labels == {0: "background", 1: "Anterior", 2: "Posterior"} and sites[0].dataset == "decathlon"
    cases = [(split, case) for site in sites for split, found in site.splits.items() for case in found]
    assert Counter(split for split, _ in cases) == {"training": 9, "test": 2, "validation": 1}
    for _, case in cases:
        assert case.image.read_bytes() == (source / "imagesTr" / f"{case.case}.nii.gz").read_bytes()
        assert case.label.read_bytes() == (source / "labelsTr" / f"{case.case}.nii.gz").read_bytes()
    assert check(tmp_path / "a").faults == []


@pytest.mark.parametrize(("header", "expected"), [
    (("case", "site", "split"), {"north": (6, 0, 2), "south": (2, 0, 2)}),
    (("case", "split"), {"site-1": (8, 0, 4)}),
    (("case", "site"), {"north": (5, 1, 2), "south": (2, 1, 1)}),
])  # fmt: skip
def test_sites_and_splits_of_a_table(header: tuple[str, ...], expected: dict, tmp_path: Path) -> None:
    source = write_task(tmp_path / "source", 12)
    splits = ["Train", "train", "test", "train"] * 2 + ["Train", "Train", "test", "test"]
    lines = [
        {"case": f"toy_{n:03d}", "site": "north" if n < 8 else "south", "split": split}
        for n, split in enumerate(splits)
    ]
    table = write_csv(tmp_path / "t.csv", header, [[line[name] for name in header] for line in lines])
    assert call("prepare", "decathlon", "--source", source, "--table", table, "--out", tmp_path / "out") == 0
    found = {site.name: tuple(len(site.splits[split]) for split in SPLITS) for site in read_sites(tmp_path / "out")}
    assert found == expected
    # What was written is a table in turn.
    again = tmp_path / "again"
    call("prepare", "decathlon", "--source", source, "--table", tmp_path / "out" / "split.csv", "--out", again)
    assert (again / "split.csv").read_text() == (tmp_path / "out" / "split.csv").read_text()


@pytest.mark.parametrize(("channel", "index"), [("1", 1), ("t1W", 1), ("FLAIR", 0), ("2", 2)])
def test_a_channel_is_taken_on_the_same_grid(channel: str, index: int, tmp_path: Path) -> None:
    source = write_task(tmp_path / "source", 3, CHANNELS)
    call("prepare", "decathlon", "--source", source, "--channel", channel, "--out", tmp_path / "out")
    site = read_sites(tmp_path / "out")[0]
    case = site.cases("training")[0]
    original = nibabel.load(source / "imagesTr" / f"{case.case}.nii.gz")
    image = nibabel.load(case.image)
    assert image.shape == (6, 7, 5) and image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(stored(case.image), np.asanyarray(original.dataobj)[..., index])
    np.testing.assert_array_equal(image.affine, original.affine)
    assert check(tmp_path / "out").faults == []


@pytest.mark.parametrize(("channel", "text"), [
    (None, "its images have 3 channels: 0 FLAIR, 1 T1w, 2 t1gd; choose one by --channel"),
    ("3", "--channel is '3', expected one of: 0 FLAIR, 1 T1w, 2 t1gd"),
    ("-1", "--channel is '-1', expected"), ("T2", "--channel is 'T2', expected"),
])  # fmt: skip
def test_a_channel_must_be_chosen(channel: str | None, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        find_decathlon(write_task(tmp_path, 3, CHANNELS), channel)


BAD_PAIR = {"image": "/etc/passwd.nii.gz", "label": "labelsTr/../../x.nii.gz"}
FAULTS: list[tuple[Any, list[str]]] = [
    ([], ["content: "]),
    ({}, ["labels: ", "modality: ", "training: "]),
    (content(["a"], labels={"0": "background", "2": "x"}), ["labels: label indices are [0, 2], expected 2 to 256"]),
    (content(["a"], labels=["background"]), ["labels: labels are ['background'], expected"]),
    (content(["a"], labels={"0": "background", "1": "x\n"}), ["labels: name is 'x\\n', expected 1 to 100 printable"]),
    (content(["a"], modality={"1": "CT"}), ["modality: channels are {'1': 'CT'}, expected"]),
    (content(["a"], modality=["CT"]), ["modality: channels are ['CT'], expected"]),
    (content(["a"], modality={"0": ""}), ["modality: name is '', expected"]),
    (content([]), ["training: "]),
    (content(["a"], training=["imagesTr/a.nii.gz"]), ["training[0]: "]),
    (content(["a"], training=[BAD_PAIR]), ["training[0].image: path is '/etc/passwd.nii.gz', expected one relative",
                                           "training[0].label: path is 'labelsTr/../../x.nii.gz', expected one"]),
    (content(["a"], training=[{"image": "a.png", "label": 3}]),
     ["training[0].image: a.png: expected a name ending in .nii.gz or .nii", "training[0].label: path is 3"]),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), FAULTS)
def test_what_comes_from_elsewhere_is_checked(values: Any, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    with pytest.raises(FaultError) as caught:
        find_decathlon(tmp_path)
    faults = [fault.removeprefix("dataset.json: ") for fault in caught.value.faults]
    assert [fault[: len(text)] for fault, text in zip(faults, expected, strict=True)] == expected


def test_all_faults_of_files_and_table_are_listed(tmp_path: Path) -> None:
    source = write_task(tmp_path / "source", 6, CHANNELS)
    (source / "imagesTr" / "toy_000.nii.gz").unlink()
    write(source / "imagesTr" / "toy_001.nii.gz", volume("x", (6, 7, 5), 2)[0], PROSTATE_AFFINE)
    write(source / "labelsTr" / "toy_002.nii.gz", np.full((6, 7, 5), 3, np.uint8), PROSTATE_AFFINE)
    lines = [("toy_000", "a", "train"), ("toy_001", "a", "test"), ("toy_002", "a", "train"), ("toy_003", "", "tset"),
             ("toy_003", "a", "test"), ("toy_004", "a", "test"), ("other", "a", "test")]  # fmt: skip
    table = write_csv(tmp_path / "t.csv", ("case", "site", "split"), lines)
    words = ["prepare", "decathlon", "--source", source, "--channel", 0, "--table", table, "--out", tmp_path / "out"]
    with pytest.raises(FaultError) as caught:
        call(*words)
    expected = ["line 5: case toy_003: has no site", "line 5: case toy_003: split is 'tset', expected train",
                "line 6: case toy_003: is in the table twice", "line 8: case other: is not in the source",
                "case toy_005 is in the source but not in the table", "toy_000.nii.gz: not found",
                "toy_001.nii.gz: shape is (6, 7, 5), expected a fourth axis that has the channel 0",
                "toy_002.nii.gz: label values [3] are not in the table"]  # fmt: skip
    assert len(caught.value.faults) == len(expected)
    assert all(text in fault for text, fault in zip(expected, caught.value.faults, strict=True))
    assert not (tmp_path / "out").exists()
    write_csv(table, ("case", "hospital"), [("toy_000", "a")])
    with pytest.raises(ValueError, match="has the columns case, hospital, expected case and any of site, split, group"):
        call(*words)
    with pytest.raises(FileNotFoundError, match="dataset.json: not found, expected the folder of one task"):
        find_decathlon(tmp_path)


def test_the_real_hippocampus(shared: Path, tmp_path: Path) -> None:
    real = shared / "msd_hippocampus"
    if not real.is_dir():
        pytest.skip("msd_hippocampus is not among the real images")
    with (real / "manifest.csv").open() as stream:
        names = [line["case"] for line in csv.DictReader(stream)][:16]
    (tmp_path / "task").mkdir()
    for folder in ("images", "labels"):
        (tmp_path / "task" / f"{folder}Tr").symlink_to(real / folder)
    (tmp_path / "task" / "dataset.json").write_text(json.dumps(content(names)))
    out = tmp_path / "out"
    assert call("prepare", "decathlon", "--source", tmp_path / "task", "--sites", 2, "--seed", 5, "--out", out) == 0
    report = check(out)
    assert report.faults == [] and sorted(sum(site.cases.values()) for site in report.sites) == [7, 9]
    assert all(set(site.share) == {"Anterior", "Posterior"} and min(site.share.values()) > 0 for site in report.sites)
    assert {line["case"] for line in lines_of(out / "split.csv")} == set(names)
