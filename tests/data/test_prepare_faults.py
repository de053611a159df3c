"""What is wrong with a source is listed as a whole, and nothing is written; a killed preparation leaves no data set."""

import gzip
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from sources import (
    IXI_AFFINE,
    KITS_AFFINE,
    KITS_LINES,
    call,
    ixi_lines,
    prepare_layout,
    stored,
    write,
    write_ixi,
    write_table,
)

from fedpeft.common import folders
from fedpeft.common.faults import FaultError
from fedpeft.data.check import check
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.prepare import staging
from fedpeft.data.prepare.pipeline import prepare
from fedpeft.data.sources.ixi import IXI
from fedpeft.data.sources.kits19 import KITS19, TABLE
from fedpeft.data.sources.prostate import PROSTATE
from fedpeft.data.volumes import prepare as volume_prepare


@pytest.fixture
def broken(kits: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(kits, tmp_path / "source"))


def test_splits_of_some_cases_alone_are_not_replaced(kits: Path, tmp_path: Path) -> None:
    image, label = (next(kits.rglob(name)) for name in ("imaging.nii.gz", "segmentation.nii.gz"))
    cases = [FoundCase("north", f"case-{split}", image, label, split=split) for split in ("training", "test", None)]
    found = Found(kits, "kits19", ["background", "kidney", "tumour"], cases)
    with pytest.raises(FaultError, match="split is None, expected training, validation, test"):
        prepare(found, tmp_path / "out")


def test_a_brain_larger_than_the_canvas_is_named(tmp_path: Path) -> None:
    lines = ixi_lines({"Guys": (1, 1)})
    source = write_ixi(tmp_path / "source", lines)
    file = next(source.rglob("T1/*.nii.gz"))
    image = np.random.default_rng(0).integers(0, 9, (5, 65, 7)).astype(np.int16)
    write(file, image, IXI_AFFINE)
    write(next(file.parents[1].glob("label/*")), (image > 4).astype(np.uint8), IXI_AFFINE)
    with pytest.raises(FaultError, match=r"slices have 65 x 7 voxels, the data set's canvas 64 x 64") as caught:
        prepare_layout(IXI, source, tmp_path / "out")
    assert caught.value.faults[0].startswith(f"Guys/{file.parents[1].name}: {file}: ")


def test_only_the_published_zones_are_merged(prostate: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(prostate, tmp_path / "source"))
    file = source / "BMC" / "Case07_Segmentation.nii.gz"
    write(file, stored(file) + np.uint8(1), nibabel.load(file).affine)
    (source / "BMC" / "case0012.nii.gz").write_bytes((source / "BMC" / "Case12.nii.gz").read_bytes())
    with pytest.raises(FaultError) as caught:
        prepare_layout(PROSTATE, source, tmp_path / "out")
    assert caught.value.faults == (
        f"BMC/Case12: 2 files for the image in {source}; keep one of BMC/Case12.nii.gz, BMC/case0012.nii.gz",
        f"BMC/Case07: {file}: label values [3] are not in the table {{0: 'background', 1: 'prostate', 2: 'prostate'}}; "
        "add them to the labels or correct the file",
    )


def sheared(degrees: float) -> np.ndarray:
    affine = KITS_AFFINE.copy()
    affine[:3, 0] += 3.0 * np.tan(np.deg2rad(degrees)) * np.array([0, 1, 0])
    return affine


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ KITS_AFFINE


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "case_00000": (lambda case: shutil.rmtree(case), r"site-A, training\): is not on disk"),
    "case_00002": (lambda case: (case / "imaging.nii.gz").unlink(), "site-A/case_00002: 0 files for the image"),
    "case_00004": (lambda case: cut(case / "imaging.nii.gz"), "site-A/case_00004: .*imaging.nii.gz: damaged gzip"),
    "case_00006": (lambda case: (case / "segmentation.nii.gz").write_bytes(gzip.compress(b"text")),
                   "site-A/case_00006: .*segmentation.nii.gz: cannot be read as NIfTI"),
    "case_00008": (lambda case: moved(case, KITS_AFFINE[[1, 0, 2, 3]]), "site-B/case_00008: .*its affine differs"),
    "case_00010": (lambda case: moved(case, sheared(10), True), "axes are 10.0 degrees off a right angle"),
    "case_00012": (lambda case: moved(case, turned(44), True), "an axis is 44.0 degrees away"),
    "case_00014": (lambda case: moved(case, KITS_AFFINE, part=np.s_[1:]), r"shape is \(4, 7, 6\), its image"),
    "case_00016": (lambda case: moved(case, KITS_AFFINE, add=3), r"label values \[3, 4, 5\] are not in the table"),
    "case_00018": (lambda case: write(case / "imaging.nii.gz", np.zeros((5, 7, 6)), KITS_AFFINE), "every voxel is 0"),
}  # fmt: skip


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def moved(case: Path, affine: np.ndarray, both: bool = False, part: object = np.s_[:], add: int = 0) -> None:
    for name in ("segmentation", "imaging")[: 1 + both]:
        array = stored(case / f"{name}.nii.gz")
        write(case / f"{name}.nii.gz", (array[part] + add).astype(array.dtype), affine)


def test_all_faults_are_listed_and_nothing_is_written(broken: Path, tmp_path: Path) -> None:
    for case, (damage, _) in FAULTS.items():
        damage(broken / case)
    with pytest.raises(FaultError) as caught:
        prepare_layout(KITS19, broken, tmp_path / "deep" / "out")
    assert len(caught.value.faults) == len(FAULTS)
    for case, (_, text) in FAULTS.items():
        assert len([fault for fault in caught.value.faults if case in fault and re.search(text, fault)]) == 1, text
    assert "10 faults; nothing was written" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("angle", [0, 30])
def test_oblique_slices_are_taken_as_they_are(broken: Path, tmp_path: Path, angle: float) -> None:
    moved(broken / "case_00000", turned(angle), True)
    prepare_layout(KITS19, broken, tmp_path / "out")
    assert check(tmp_path / "out").faults == []


def test_tables(broken: Path, tmp_path: Path) -> None:
    (broken / TABLE.name).rename(tmp_path / "mine.csv")
    with pytest.raises(FileNotFoundError, match=r"thresholded_sites.csv: not found; give FLamby's .* by --table FILE"):
        prepare_layout(KITS19, broken, tmp_path / "out")
    other = write_table(tmp_path / "anony_sites.csv", ("case", "site_id", "split"), KITS_LINES)
    with pytest.raises(ValueError, match="no column 'case_ids', it has .*; expected case_ids, site_ids, train_test_"):
        prepare_layout(KITS19, broken, tmp_path / "out", table=other)
    prepare_layout(KITS19, broken, tmp_path / "out", table=tmp_path / "mine.csv")
    with pytest.raises(FileNotFoundError, match="no case found in it, expected case_00000/imaging.nii.gz and"):
        prepare_layout(KITS19, broken / "case_00000", tmp_path / "other")
    with pytest.raises(FileExistsError, match="not empty"):
        call("prepare", "kits19", "--source", broken, "--out", tmp_path / "out")


def test_a_full_disk_is_noticed_before_anything_is_written(
    kits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(FaultError, match="0.00 GB are needed, 0.00 GB are free; free some space or give another --out"):
        prepare_layout(KITS19, kits, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_preparation_leaves_nothing_that_stays(kits: Path, tmp_path: Path, number: signal.Signals) -> None:
    child = os.fork()
    if not child:
        copies = []
        copyfile = shutil.copyfile

        def copy(*files: Path) -> None:
            copies.append(copyfile(*files))
            if len(copies) == 5:
                os.kill(os.getpid(), number)

        volume_prepare.shutil.copyfile = copy
        try:
            call("prepare", "kits19", "--source", kits, "--out", tmp_path / "out")
        except KeyboardInterrupt:
            os._exit(130)
        finally:
            os._exit(1)
    ended = os.waitpid(child, 0)[1]
    left = list(tmp_path.iterdir())
    assert not (tmp_path / "out").exists()
    if number == signal.SIGTERM:
        assert os.WEXITSTATUS(ended) == 130 and left == []
    else:
        assert os.WTERMSIG(ended) == number and [path.name.startswith(".out.") for path in left] == [True]
    prepare_layout(KITS19, kits, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert folders._runs(str(os.getpid())) and not folders._runs(str(child)) and folders._runs("notes")
