"""Datalists of images: what they say, what is refused, and that those of volumes stay as they were."""

import json
from pathlib import Path
from typing import Any

import pytest
from photos import write_image

from fedpeft.data.datalist import Case, pool, read_site, read_sites, write_datalist

LABELS = {0: "mel", 1: "nv", 2: "bcc"}


def write(root: Path, site: str = "a", **changes: Any) -> Path:
    folder = root / site
    cases = [
        Case(f"c{n}", write_image(folder / "images" / f"c{n}.png"), target=n or None, group="g" * (n == 2))
        for n in range(3)
    ]
    splits = {"training": cases[1:], "test": cases[:1]}
    file = write_datalist(folder, "images", LABELS, splits, None, "classification")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path).read_text())
    assert content == {
        "name": "images", "task": "classification", "labels": {"0": "mel", "1": "nv", "2": "bcc"}, "validation": [],
        "training": [{"image": "images/c1.png", "label": 1, "case": "c1"},
                     {"image": "images/c2.png", "label": 2, "case": "c2", "group": "g"}],
        "test": [{"image": "images/c0.png", "case": "c0"}],
    }  # fmt: skip
    site = read_site(tmp_path / "a")
    assert (site.task, site.labels, site.classes, site.statistics) == ("classification", LABELS, 3, None)
    assert [(case.target, case.group, case.labelled) for case in site.cases("training")] == [(1, "", 1), (2, "g", 1)]
    (test,) = site.cases("test")
    assert (test.target, test.label, test.labelled, test.site) == (None, None, False, "a")


def test_a_volumes_datalist_has_nothing_new(tmp_path: Path) -> None:
    (tmp_path / "image.nii").touch()
    (tmp_path / "label.nii").touch()
    case = Case("c", tmp_path / "image.nii", tmp_path / "label.nii")
    file = write_datalist(tmp_path, "toy", {0: "background", 1: "organ"}, {"training": [case]}, None)
    assert file.read_text() == (
        '{\n "name": "toy",\n "labels": {\n  "0": "background",\n  "1": "organ"\n },\n'
        ' "training": [\n  {\n   "image": "image.nii",\n   "label": "label.nii",\n   "case": "c"\n  }\n ],\n'
        ' "validation": [],\n "test": [],\n "statistics": null\n}\n'
    )
    site = read_site(file)
    assert (site.task, site.classes) == ("segmentation", 1)
    assert site.cases("training")[0].labelled


@pytest.mark.parametrize("label", [3, -1, "1", True, 1.0, "images/c1.png"])
def test_a_label_must_be_in_the_table(label: Any, tmp_path: Path) -> None:
    entries = [{"image": "images/c1.png", "label": 1, "case": "c1"},
               {"image": "images/c2.png", "label": label, "case": "c2"}]  # fmt: skip
    with pytest.raises(ValueError, match=r"datalist.json: training\[1\]: label is .* index of the table"):
        read_site(write(tmp_path, training=entries))


@pytest.mark.parametrize(("changes", "text"), [
    ({"task": "detection"}, "task is 'detection', expected .* or"),
    ({"labels": {"0": "only"}}, "expected 2 to 256"),
    ({"test": [{"image": "/etc/passwd", "label": 1, "case": "x"}]}, r"test\[0\]: path is '/etc/passwd'"),
    ({"test": [{"image": "../b/c.png", "label": 1, "case": "x"}]}, r"test\[0\]: path is"),
])  # fmt: skip
def test_a_faulty_datalist_is_named(changes: dict, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"datalist.json: .*{text}"):
        read_site(write(tmp_path, **changes))


def test_sites_of_different_tasks_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path, "a")
    other = write(tmp_path, "b")
    pooled = pool(read_sites(tmp_path))
    assert (pooled.task, pooled.classes) == ("classification", 3)
    assert [(case.case, case.target) for case in pooled.cases("training")] == [
        ("a/c1", 1), ("a/c2", 2), ("b/c1", 1), ("b/c2", 2)
    ]  # fmt: skip
    content = json.loads(other.read_text())
    other.write_text(json.dumps({**content, "task": "segmentation", "training": [], "test": []}))
    with pytest.raises(ValueError, match="tasks differ: site a is of classification, site b of segmentation"):
        read_sites(tmp_path)
    with pytest.raises(ValueError, match="cannot pool"):
        pool([read_site(tmp_path / "a"), read_site(other)])
