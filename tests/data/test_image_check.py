"""Checking a folder of images."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from photos import cut

from fedpeft.data.check import check
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.prepare.writer import write_folder

SOURCE = Path("script")


def test_check_finds_what_is_wrong_later(images: list[FoundCase], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(Found(SOURCE, "images", ("x", "y"), images), out)
    report = check(out)
    shown = "1 test case shows a lesion or patient of a training case: b/c7 and a/c0"
    assert (report.faults, report.warnings) == ([], [shown])
    first = report.sites[0]
    assert (first.site, first.shape) == ("a", ((8, 11), (8, 11)))
    assert first.classes == {"x": {"training": 1, "validation": 1, "test": 0},
                             "y": {"training": 1, "validation": 0, "test": 1}}  # fmt: skip
    shutil.copyfile(out / "a" / "images" / "c2.jpg", out / "a" / "images" / "c3.jpg")
    cut(out / "b" / "images" / "c5.jpg")
    (out / "b" / "images" / "c6.jpg").unlink()
    report = check(out)
    assert [fault.split(": ")[1][:14] for fault in report.faults] == ["cannot be read", "not found, exp"]
    assert "1 test case shows the same file as a validation case: a/c3 and a/c2" in report.warnings


def test_check_of_datalists_of_images(images: list[FoundCase], tmp_path: Path) -> None:
    known = [image if image.split == "test" else replace(image, target=0) for image in images]
    write_folder(Found(SOURCE, "images", ("x", "y"), known), tmp_path / "out")
    file = tmp_path / "out" / "a" / "datalist.json"
    assert "a: test cases but no training case of y" in check(tmp_path / "out").warnings
    content = json.loads(file.read_text())
    del content["training"][0]["label"]
    file.write_text(json.dumps({**content, "validation": []}))
    report = check(tmp_path / "out")
    assert [fault.split(": ")[1][:28] for fault in report.faults] == ["has no label in the datalist"]
    assert f"{file}: validation is empty" in report.warnings
    file.write_text(json.dumps({**content, "training": []}))
    assert check(tmp_path / "out").faults == [f"{file}: training is empty"]
    file.write_text(json.dumps({**content, "task": "segmentation", "training": [], "validation": [], "test": []}))
    assert any("is of classification, a of segmentation" in fault for fault in check(tmp_path / "out").faults)
