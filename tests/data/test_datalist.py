"""Site folders: reading, refusing, pooling, writing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import LABELS

from fedpeft.config.datasets import DATASETS, Preprocessing, dataset
from fedpeft.data.datalist import Case, pool, read_site, read_sites, write_datalist
from fedpeft.data.entries import DatalistError
from fedpeft.data.volumes.normalise import Statistics

STATISTICS = Statistics(3.0, 2.0, 1, Preprocessing().rule)


def write(root: Path, make_case: Callable[..., Case], name: str = "a", **changes: Any) -> Path:
    folder = root / name
    cases = [make_case(f"case-{number}", folder=folder) for number in range(3)]
    splits = {"training": cases[:2], "test": cases[2:]}
    file = write_datalist(folder, "toy", changes.pop("labels", LABELS), splits, changes.pop("statistics", STATISTICS))
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return file


def test_what_is_written_is_read(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    file = write(tmp_path, make_case)
    site = read_site(file)
    assert site == read_site(file.parent)
    assert (site.name, site.labels, site.classes, site.statistics) == ("a", LABELS, 2, STATISTICS)
    assert [case.case for case in site.cases("training")] == ["case-0", "case-1"]
    first = site.cases("training")[0]
    assert first.image == file.parent / "case-0" / "image.nii.gz" and first.label.is_file()
    assert (first.site, first.statistics) == ("a", STATISTICS)
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".")]
    with pytest.raises(ValueError, match="no case for validation"):
        site.cases("validation")
    with pytest.raises(ValueError, match="split 'train' is unknown"):
        site.cases("train")


def test_a_linked_site_keeps_the_name_of_the_link(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    file = write(tmp_path, make_case)
    (tmp_path / "b").symlink_to(file.parent)
    assert read_site(tmp_path / "b").name == "b"


@pytest.mark.parametrize("path", ["/etc/passwd", "../b/image.nii.gz", "x/../../image.nii.gz", "..\\image.nii", "", 3])
@pytest.mark.parametrize("key", ["image", "label"])
def test_a_path_must_stay_inside(key: str, path: Any, tmp_path: Path, make_case: Callable[..., Case]) -> None:
    entry = {"image": "a.nii", "label": "b.nii", "case": "c", key: path}
    with pytest.raises(ValueError, match=r"datalist.json: training\[0\]: path is"):
        read_site(write(tmp_path, make_case, training=[entry]))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"training": {}}, "training is a dict"),
        ({"training": [{"image": "a.nii"}]}, "expected an object with image, label and case"),
        ({"labels": None}, "labels are None"),
        ({"labels": {"0": "background", "2": "x"}}, "without a gap"),
        ({"labels": {"zero": "background"}}, "labels are"),
        ({"statistics": {"mean": 1}}, "prepare the data again"),
        ({"statistics": {"mean": 1.0, "std": 0.0, "cases": 1, "rule": ""}}, "std > 0"),
        ({"validation": [{"image": "a.nii", "case": "case-0"}]}, "'case-0' is in training and in validation"),
    ],
)
def test_a_faulty_datalist_is_named(changes: dict, text: str, tmp_path: Path, make_case: Callable[..., Case]) -> None:
    file = changed(write(tmp_path, make_case), changes)
    with pytest.raises(ValueError, match=f"datalist.json: .*{text}"):
        read_site(file)


def test_all_faults_are_listed_each_by_its_entry(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    entries = [{"image": "../a.nii", "case": "x"}, 3, {"label": "b.nii"}, {"image": "a.nii", "label": 1, "case": "y"}]
    file = changed(write(tmp_path, make_case), {"labels": {"0": "background"}, "test": {}, "training": entries})
    with pytest.raises(DatalistError) as caught:
        read_site(file)
    assert caught.value.faults == (
        f"{file}: label indices are [0], expected 2 to 256, from 0 without a gap",
        f"{file}: training[0]: path is '../a.nii', expected one relative to the file without '..'",
        f"{file}: training[1] is 3, expected an object with image, label and case",
        f"{file}: training[2] is {{'label': 'b.nii'}}, expected an object with image, label and case",
        f"{file}: training[3]: path is 1, expected one relative to the file without '..'",
        f"{file}: test is a dict, expected a list; prepare the data again",
    )
    assert str(caught.value) == "\n  ".join((f"{file}: 6 faults", *caught.value.faults))
    entries = [{"image": "", "case": number} for number in range(30)]
    changed(file, {"labels": {"0": "a", "1": "b"}, "test": [], "training": entries})
    with pytest.raises(DatalistError, match="30 faults") as caught:
        read_site(file)
    assert len(caught.value.faults) == 30 and str(caught.value).endswith("\n  and 10 more")


def changed(file: Path, changes: dict) -> Path:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return file


def test_no_datalist_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fedpeft data"):
        read_sites(tmp_path)
    with pytest.raises(FileNotFoundError, match="datalist"):
        read_site(tmp_path)
    (tmp_path / "datalist.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_site(tmp_path)


def test_sites_are_sorted_and_must_agree(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    for name in ("b", "a"):
        write(tmp_path, make_case, name)
    assert [site.name for site in read_sites(tmp_path)] == ["a", "b"]
    write(tmp_path, make_case, "c", labels={0: "background", 1: "organ"})
    with pytest.raises(ValueError, match="site a has .* site c has"):
        read_sites(tmp_path)


def test_a_pool_keeps_each_sites_statistics(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    other = Statistics(9.0, 1.0, 2, Preprocessing().rule)
    write(tmp_path, make_case, "a")
    write(tmp_path, make_case, "b", statistics=other)
    pooled = pool(read_sites(tmp_path))
    cases = pooled.cases("training")
    assert [case.case for case in cases] == ["a/case-0", "a/case-1", "b/case-0", "b/case-1"]
    assert [case.statistics for case in cases] == [STATISTICS] * 2 + [other] * 2
    assert pooled.statistics is None and pooled.labels == LABELS
    with pytest.raises(ValueError, match="cannot pool"):
        pool([])


def test_files_outside_the_folder_are_not_listed(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="lies outside"):
        write_datalist(tmp_path / "a", "toy", LABELS, {"training": [make_case()]}, None)
    assert not list((tmp_path / "a").iterdir())


def test_entries() -> None:
    assert dataset("phantom") is DATASETS["phantom"]
    assert [name for _, name in DATASETS["phantom"].labels] == ["background", "organ", "lesion"]
    with pytest.raises(ValueError, match="unknown data set 'kits'; known: phantom, folder, kits19, ixi, prostate"):
        dataset("kits")
    with pytest.raises(ValueError, match="clip is"):
        Preprocessing(clip=(1.0, 0.0))
