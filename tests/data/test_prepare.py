"""The paper's data sets from their publishers' layouts to site folders, with volumes of a few voxels."""

import csv
import hashlib
import json
import signal
from pathlib import Path

import nibabel
import numpy as np
import pytest
from sources import KITS_LINES, PROSTATE, call, ixi_lines, prepare_layout, stored, write_ixi, write_kits, write_table

from fedpeft.common.faults import FaultError
from fedpeft.config.datasets import DATASETS
from fedpeft.data.check import check
from fedpeft.data.datalist import SPLITS, read_sites
from fedpeft.data.prepare.staging import SPLIT_FILE
from fedpeft.data.sources.ixi import IXI, TABLE
from fedpeft.data.sources.kits19 import KITS19
from fedpeft.data.sources.prostate import PROSTATE as LAYOUT
from fedpeft.data.volumes.volume import read_volume, to_original_grid


def counts(root: Path) -> dict[str, list[int]]:
    return {site.name: [len(site.splits[split]) for split in SPLITS] for site in read_sites(root)}


def fingerprints(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_kits_in_both_layouts_gives_the_same_folders(kits: Path, tmp_path: Path) -> None:
    done = prepare_layout(KITS19, kits, tmp_path / "a")
    raw = write_kits(tmp_path / "raw", KITS_LINES, raw=True)
    again = prepare_layout(KITS19, raw, tmp_path / "b")
    assert counts(tmp_path / "a") == {"site-A": [3, 0, 1], "site-B": [4, 0, 2]}
    assert fingerprints(tmp_path / "a") == fingerprints(tmp_path / "b")
    assert done.notes == [f"1 cases in {kits} are not in thresholded_sites.csv and were left out"]
    assert [site.name for site in again.sites] == ["site-A", "site-B"] and len(list(kits.rglob("*.nii.gz"))) == 22
    with (tmp_path / "a" / SPLIT_FILE).open() as stream:
        recorded = {(line["site"], line["case"]): line["split"] for line in csv.DictReader(stream)}
    assert len(recorded) == 10 and recorded["site-A", "case_00006"] == "test"
    assert (tmp_path / "a" / "site-A" / "case_00000" / "image.nii.gz").read_bytes() == (
        kits / "case_00000" / "imaging.nii.gz"
    ).read_bytes()


def test_an_empty_table_is_a_fault_and_nothing_is_written(kits: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "empty.csv", KITS19.table.columns, [])
    with pytest.raises(FaultError, match="none of the 11 cases"):
        prepare_layout(KITS19, kits, tmp_path / "out", table=table)
    assert not (tmp_path / "out").exists()


def test_kits_statistics_are_those_of_all_training_voxels(kits: Path, tmp_path: Path) -> None:
    sites = prepare_layout(KITS19, kits, tmp_path / "out").sites
    for site, chosen in zip(sites, (KITS_LINES[:3], KITS_LINES[4:8]), strict=True):
        files = [kits / case / "imaging.nii.gz" for case, _, split in chosen if split == "train"]
        voxels = np.concatenate([stored(file).ravel() for file in files]).astype(np.float64)
        low, high = np.percentile(voxels, (5, 95))
        clipped = np.clip(voxels, low, high)
        found = site.statistics
        np.testing.assert_allclose((found.low, found.high), (low, high), rtol=1e-12)
        np.testing.assert_allclose((found.mean, found.std), (clipped.mean(), clipped.std()), rtol=1e-9)
        assert found.cases == len(files)
        volume = read_volume(site.cases("test")[0], site.labels, DATASETS["kits19"].preprocessing)
        # Slices are the files' first axis, whatever it is called there.
        assert tuple(volume.image.shape) == (6, 7, 5) and volume.normalised == "site"
        np.testing.assert_allclose(volume.spacing, (0.8, 0.8, 3.0), rtol=1e-6)


@pytest.mark.parametrize("share", [None, 0.25])
def test_check_is_content_with_what_was_prepared(kits: Path, tmp_path: Path, share: float | None) -> None:
    prepare_layout(KITS19, kits, tmp_path / "out", validation=share, seed=1)
    report = check(tmp_path / "out")
    assert report.faults == []
    assert [line.rsplit(" ", 3)[1:] for line in report.warnings] == [] if share else [["validation", "is", "empty"]] * 2
    if share:
        assert counts(tmp_path / "out") == {"site-A": [2, 1, 1], "site-B": [3, 1, 2]}
    file = tmp_path / "out" / "site-A" / "datalist.json"
    content = json.loads(file.read_text())
    content["statistics"]["low"] += 30
    file.write_text(json.dumps(content))
    assert "the training cases have" in check(tmp_path / "out").faults[0]


def test_ixi_with_and_without_its_folder(tmp_path: Path) -> None:
    lines = ixi_lines({"Guys": (2, 1), "HH": (1, 1), "IOP": (1, 1)})
    source = write_ixi(tmp_path / "source", lines)
    prepare_layout(IXI, source, tmp_path / "a")
    prepare_layout(IXI, source / "IXI_sample", tmp_path / "b", table=source / "metadata_tiny.csv")
    assert counts(tmp_path / "a") == {"Guys": [2, 0, 1], "HH": [1, 0, 1], "IOP": [1, 0, 1]}
    assert fingerprints(tmp_path / "a") == fingerprints(tmp_path / "b")
    report = check(tmp_path / "a")
    assert report.faults == [] and {line.rsplit(": ")[1] for line in report.warnings} == {"validation is empty"}
    # As the files are, not as they are padded.
    assert report.sites[0].shape == ((6, 7, 9), (6, 7, 9)) and report.sites[0].orientation == ("SRA",)
    site = read_sites(tmp_path / "a")[0]
    assert site.statistics is None
    volume = read_volume(site.cases("test")[0], site.labels, DATASETS["ixi"].preprocessing)
    assert tuple(volume.image.shape) == (64, 64, 9) and volume.normalised == "volume"


def test_real_brains(shared: Path, tmp_path: Path) -> None:
    images = sorted((shared / "ixi_hh").glob("*_image.nii.gz"))[:4]
    if not images:
        pytest.skip("ixi_hh is not among the real images")
    lines = []
    for image, split in zip(images, ("train", "train", "train", "test"), strict=True):
        patient = image.name.removesuffix("_image.nii.gz")
        lines.append((str(int(patient[3:6])), "1", split))
        for folder, kind in (("T1", "image"), ("label", "label")):
            target = tmp_path / "source" / patient / folder / f"{patient}_{kind}.nii.gz"
            target.parent.mkdir(parents=True)
            target.symlink_to(image.with_name(f"{patient}_{kind}.nii.gz"))
    table = write_table(tmp_path / "table.csv", TABLE.columns, lines)
    site = prepare_layout(IXI, tmp_path / "source", tmp_path / "out", table=table, validation=0.3).sites[0]
    assert check(tmp_path / "out").faults == [] and counts(tmp_path / "out") == {"HH": [2, 1, 1]}
    case = site.cases("test")[0]
    assert not case.image.is_symlink()
    volume = read_volume(case, site.labels, DATASETS["ixi"].preprocessing)
    assert tuple(volume.image.shape) == (64, 64, 60) and (volume.image.min(), volume.image.max()) == (0, 1)
    np.testing.assert_array_equal(to_original_grid(volume.label, volume), stored(case.label))


def test_zones_of_the_prostate_become_one(prostate: Path, tmp_path: Path) -> None:
    done = prepare_layout(LAYOUT, prostate, tmp_path / "out")
    assert counts(tmp_path / "out") == {site: [train, 0, test] for site, (train, test) in sorted(PROSTATE.items())}
    assert done.notes == ["label values in 60 of 116 label files were changed: 2 becomes 1"]
    assert check(tmp_path / "out").faults == []
    zones, kept = prostate / "RUNMC" / "Case03_segmentation.nii.gz", prostate / "HK" / "case0038_segmentation.nii.gz"
    merged = nibabel.load(tmp_path / "out" / "RUNMC" / "Case03" / "label.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(merged.dataobj), (stored(zones) > 0).astype(np.uint8))
    np.testing.assert_array_equal(merged.affine, nibabel.load(zones).affine)
    assert set(np.unique(stored(zones))) == {0, 1, 2}
    assert (tmp_path / "out" / "HK" / "Case38" / "label.nii.gz").read_bytes() == kept.read_bytes()
    site = next(site for site in done.sites if site.name == "UCL")
    files = [case.image for case in site.cases("training")]
    voxels = np.concatenate([stored(file).ravel() for file in files]).astype(np.float64)
    np.testing.assert_allclose((site.statistics.mean, site.statistics.std), (voxels.mean(), voxels.std()), rtol=1e-9)


def test_progress_counts_bytes_to_the_end(kits: Path, tmp_path: Path) -> None:
    seen = []
    prepare_layout(KITS19, kits, tmp_path / "out", progress=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert len({total for _, _, total in seen}) == 1 and seen[0][1] == 0 and seen[-1][1] == seen[-1][2]
    assert [what for what, _, _ in seen][:1] == ["reading site-A/case_00000"] and len(seen) == 10 + 10 + 7 + 1


def test_the_command(kits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "kits19", "--source", kits, "--validation", 0.3, "--seed", 4]
    assert call(*words, "--out", tmp_path / "a", "--register", tmp_path / "ws", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["sites"][1] == {"site": "site-B", "training": 3, "validation": 1, "test": 2}
    assert made["notes"] == [f"1 cases in {kits} are not in thresholded_sites.csv and were left out"]
    assert json.loads(Path(made["site_file"]).read_text())["datasets"].keys() == {"kits19"}
    assert call(*words, "--out", tmp_path / "b") == 0
    out = capsys.readouterr().out
    assert "kits19 in" in out and "were left out" in out
    assert call("check", tmp_path / "b") == 0
    assert "2 sites, 0 faults, 0 warnings" in capsys.readouterr().out
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError, match="no case found in it, expected IXI_sample/<patient>/T1/"):
        call("prepare", "ixi", "--source", kits, "--out", tmp_path / "c")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", ["folder", "kits19", "ixi", "prostate"])
def test_every_layout_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call("prepare", name, "--help")
    out = capsys.readouterr().out
    assert caught.value.code == 0 and f"fedpeft data prepare {name}" in out.split("example")[1]
    assert ("--image" in out) == (name == "folder") and ("--validation" in out) == (name != "folder")
    assert ("--table" in out) == (name != "prostate")
