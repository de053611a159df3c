"""Checking a folder of sites, by hand and from the command line."""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from toy import LABELS, arrays

from fedpeft.cli import data as command
from fedpeft.config.datasets import Preprocessing
from fedpeft.data.check import check
from fedpeft.data.datalist import Case, write_datalist
from fedpeft.data.volumes.volume import site_statistics


@pytest.fixture
def root(tmp_path: Path, make_case: Callable[..., Case]) -> Path:
    for site in ("a", "b"):
        folder = tmp_path / "sites" / site
        cases = [make_case(f"{site}-{number}", folder=folder) for number in range(4)]
        splits = {"training": cases[:2], "validation": cases[2:3], "test": cases[3:]}
        write_datalist(folder, "toy", LABELS, splits, site_statistics(cases[:2], Preprocessing()))
    return tmp_path / "sites"


def change(root: Path, site: str, **values: object) -> None:
    file = root / site / "datalist.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_what_a_sound_folder_has(root: Path) -> None:
    report = check(root)
    assert (report.faults, report.warnings) == ([], [])
    site = report.sites[0]
    assert (site.site, site.cases, site.orientation) == ("a", {"training": 2, "validation": 1, "test": 1}, ("RAS",))
    assert site.shape == ((9, 8, 7), (9, 8, 7)) and site.spacing == ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    label = arrays((9, 8, 7))[1]
    assert site.share == pytest.approx({"organ": (label == 1).mean(), "lesion": (label == 2).mean()})


def test_every_fault_is_named_by_its_file(root: Path) -> None:
    image = root / "a" / "a-0" / "image.nii.gz"
    image.write_bytes(image.read_bytes()[:60])
    (root / "a" / "a-1" / "label.nii.gz").unlink()
    nan = root / "b" / "b-2" / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((9, 8, 7), np.nan, np.float32), np.diag([1, 2, 3, 1])), nan)
    shutil.copyfile(root / "b" / "b-0" / "image.nii.gz", root / "b" / "b-3" / "image.nii.gz")
    faults = check(root).faults
    expected = [f"{image}: damaged", f"{root / 'a' / 'a-1' / 'label.nii.gz'}: not found", f"{nan}: 504 voxels are NaN",
                f"{root / 'b' / 'b-3' / 'image.nii.gz'}: same file as"]  # fmt: skip
    assert len(faults) == len(expected)
    assert all(fault.startswith(text) for fault, text in zip(faults, expected, strict=True))


def test_statistics_must_be_those_of_the_training_cases(root: Path) -> None:
    kept = json.loads((root / "a" / "datalist.json").read_text())["statistics"]
    change(root, "a", statistics={**kept, "mean": kept["mean"] * 1.01})
    change(root, "b", statistics={**kept, "rule": "by eye"})
    faults = check(root, Preprocessing()).faults
    assert len(faults) == 2 and "the training cases have" in faults[0] and "'by eye'" in faults[1]
    change(root, "a", statistics=None)
    assert "no statistics" in check(root, Preprocessing()).warnings[0]


def test_faulty_and_differing_datalists(root: Path) -> None:
    change(root, "a", labels={"0": "background", "1": "organ", "2": "lesion", "3": "cyst"}, validation=[], training=[])
    report = check(root)
    assert [fault.split(": ", 1)[1][:19] for fault in report.faults] == ["training is empty", "labels are {0: 'bac"]
    assert report.warnings[-1].endswith("validation is empty")
    (root / "b" / "datalist.json").write_text("[]")
    assert any("holds a list" in fault for fault in check(root).faults)
    with pytest.raises(FileNotFoundError, match="no <site>/datalist.json"):
        check(root / "a")


def test_odd_things_are_warnings(root: Path, make_case: Callable[..., Case]) -> None:
    empty = np.zeros((9, 8, 7), np.uint8)
    case = make_case("odd", label=empty, affine=np.eye(4), folder=root / "c")
    write_datalist(root / "c", "toy", LABELS, {"training": [case]}, site_statistics([case], Preprocessing()))
    report = check(root)
    assert not report.faults
    assert [any(text in line for line in report.warnings) for text in ("identity", "no foreground")] == [True, True]


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(), "")
    return command.run(parser.parse_args(["data", *words]))


def test_commands(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(root)) == 0
    assert "2 sites, 0 faults, 0 warnings" in capsys.readouterr().out
    (root / "a" / "a-1" / "image.nii.gz").unlink()
    assert run("check", str(root), "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 1
    assert run("phantom", "--out", str(tmp_path / "p"), "--sites", "1", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["sites"] == [{"site": "site-1", "training": 8, "validation": 3, "test": 5}]
    options = ("--image", "image.nii.gz", "--label", "label.nii.gz", "--labels", "1=organ,2=lesion")
    (root / "a").rename(tmp_path / "gone")
    assert run("prepare", "folder", "--source", str(root), *options, "--out", str(tmp_path / "out")) == 0
    assert "folder in" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["phantom"], ["prepare"], ["check"]])
def test_help_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words, "--help")
    assert caught.value.code == 0 and f"fedpeft data {words[0]}" in capsys.readouterr().out.split("example")[1]


@pytest.mark.parametrize("labels", ["organ", "2=lesion", "1=", "1=a,1.5=b"])
def test_labels_option(labels: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("prepare", "folder", "--source", "s", "--image", "i", "--label", "l", "--out", "o", "--labels", labels)
    assert "--labels" in capsys.readouterr().err
