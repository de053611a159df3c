"""Data sets in their publishers' own layouts, with volumes of a few voxels: whatever the tests need of them."""

import argparse
import csv
import zlib
from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np

from fedpeft.cli import data as command
from fedpeft.data.prepare.pipeline import Choices, prepare
from fedpeft.data.prepare.staging import Prepared, Progress, no_progress
from fedpeft.data.sources import ixi, kits19, prostate
from fedpeft.data.sources.layout import Layout, find
from fedpeft.data.sources.prostate import HOSPITALS

# As published: training and test cases of each site.
KITS = {"site-A": (9, 3), "site-B": (11, 3), "site-C": (9, 3), "site-D": (9, 3), "site-E": (12, 4), "site-F": (24, 6)}
IXI = {"Guys": (249, 62), "HH": (145, 36), "IOP": (59, 15)}
PROSTATE = {"RUNMC": (24, 6), "BMC": (24, 6), "I2CVB": (15, 4), "UCL": (10, 3), "BIDMC": (9, 3), "HK": (9, 3)}
# Axes slice, row, column as the challenge's files have them: inferior, posterior, left.
KITS_AFFINE = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
# IXI-Tiny: 83 along the body's axis, 44 from left to right, 55 from back to front.
IXI_AFFINE = np.array([[0, 4.13, 0, -90], [0, 0, 3.95, -110], [2.18, 0, 0, -80], [0, 0, 0, 1]])
PROSTATE_AFFINE = np.array([[-0.6, 0, 0, 40], [0, -0.6, 0, 30], [0, 0, 3.6, -20], [0, 0, 0, 1]])

Line = tuple[str, str, str]


def volume(name: str, shape: tuple[int, int, int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """An image in Hounsfield-like units and a label, the same for the same name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    label = np.zeros(shape, np.uint8)
    for index in range(1, classes + 1):
        label[index : index + 2, index : index + 2, 1:3] = index
    return rng.integers(-1000, 400, shape).astype(np.int16) + 50 * label, label


def write(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def kits_lines(counts: dict[str, tuple[int, int]] = KITS) -> list[Line]:
    """Rows of a table like FLamby's: every second number of the challenge."""
    places = [(str(site), split) for site, (train, test) in enumerate(counts.values())
              for split in ["train"] * train + ["test"] * test]  # fmt: skip
    return [(f"case_{2 * number:05d}", *place) for number, place in enumerate(places)]


# Two sites of the table are enough where files are written.
KITS_LINES = kits_lines({"site-A": (3, 1), "site-B": (4, 2)})


def ixi_lines(counts: dict[str, tuple[int, int]] = IXI) -> list[Line]:
    """Rows of a table like FLamby's; sites take turns among the patients' numbers."""
    places = [(str(site), split) for site, (train, test) in enumerate(counts.values())
              for split in ["train"] * train + ["test"] * test]  # fmt: skip
    return [(str(2 + 7 * number), *place) for number, place in enumerate(places)]


def ixi_name(number: str, site: str) -> str:
    return f"IXI{int(number):03d}-{ixi.SITES[int(site)]}-{800 + int(number):04d}"


def prostate_names() -> list[str]:
    """Files of all six hospitals; capitals and digits differ as they do."""
    first = {"UCL": 1, "HK": 38}
    numbers = {
        site: sorted({*hospital.test, *range(first.get(site, 0), first.get(site, 0) + hospital.cases)})
        for site, hospital in HOSPITALS.items()
    }
    for site, hospital in HOSPITALS.items():
        extra = [number for number in reversed(numbers[site]) if number not in hospital.test]
        numbers[site] = sorted(set(numbers[site]) - set(extra[: len(numbers[site]) - hospital.cases]))
    names = []
    for site, chosen in numbers.items():
        stem, mask = {"BMC": ("Case", "_Segmentation"), "HK": ("case", "_segmentation")}.get(
            site, ("Case", "_segmentation")
        )
        digits = 4 if site in ("UCL", "HK") else 2
        names += [f"{site}/{stem}{number:0{digits}d}{part}.nii.gz" for number in chosen for part in ("", mask)]
    return names


def write_table(path: Path, columns: Iterable[str], lines: Iterable[Line]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([(*columns, "more"), *((*line, "x") for line in lines)])
    return path


def write_kits(root: Path, lines: list[Line], raw: bool = False) -> Path:
    """The challenge's layout or nnU-Net's, with the table in it and one case more than that has."""
    for case in [line[0] for line in lines] + ["case_00299"]:
        image, label = volume(case, (5, 7, 6), 2)
        names = (f"imagesTr/{case}_0000", f"labelsTr/{case}") if raw else (f"{case}/imaging", f"{case}/segmentation")
        write(root / f"{names[0]}.nii.gz", image, KITS_AFFINE)
        write(root / f"{names[1]}.nii.gz", label, KITS_AFFINE)
    write_table(root / kits19.TABLE.name, kits19.TABLE.columns, lines)
    return root


def write_ixi(root: Path, lines: list[Line]) -> Path:
    for number, site, _ in lines:
        name = ixi_name(number, site)
        image, label = volume(name, (9, 6, 7), 1)
        write(root / "IXI_sample" / name / "T1" / f"{name}_image.nii.gz", image, IXI_AFFINE)
        write(root / "IXI_sample" / name / "T2" / f"{name}_image.nii.gz", image, IXI_AFFINE)
        write(root / "IXI_sample" / name / "label" / f"{name}_label.nii.gz", label, IXI_AFFINE)
    write_table(root / ixi.TABLE.name, ixi.TABLE.columns, lines)
    return root


def write_prostate(root: Path) -> Path:
    """All six hospitals; RUNMC and BMC have zones."""
    for name in prostate_names():
        case, kind = prostate.identify(name)
        image, label = volume(case, (6, 6, 4), 2 if case.split("/")[0] in ("RUNMC", "BMC") else 1)
        write(root / name, label if kind == "label" else image, PROSTATE_AFFINE)
    return root


def write_synapse(root: Path, folders: tuple[str, str] = ("Training/img", "Training/label")) -> Path:
    """The 30 labelled scans of the challenge, each with all 13 organs, and a test scan of it without a label."""
    for number in (*range(1, 11), *range(21, 41)):
        image, label = volume(f"abdomen {number}", (7, 6, 4), 0)
        label.flat[:14] = np.arange(14)
        write(root / folders[0] / f"img{number:04d}.nii.gz", image, PROSTATE_AFFINE)
        write(root / folders[1] / f"label{number:04d}.nii.gz", label, PROSTATE_AFFINE)
    write(root / "Testing" / "img" / "img0061.nii.gz", image, PROSTATE_AFFINE)
    return root


def stored(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def prepare_layout(
    layout: Layout,
    source: Path,
    out: Path,
    *,
    table: Path | None = None,
    validation: float | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Prepared:
    """What ``fedpeft data prepare`` does for a layout."""
    return prepare(find(layout, source, table), out, Choices(validation=validation, seed=seed), progress)


def call(*words: object) -> int:
    """``fedpeft data`` with these arguments."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(), "")
    return command.run(parser.parse_args(["data", *map(str, words)]))
