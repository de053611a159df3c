"""Small volumes on disk, and the real ones where they are."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from photos import TABLE, write_csv, write_image, write_tree
from sources import KITS_LINES, write_kits, write_prostate
from toy import arrays

from fedpeft.data.datalist import Case
from fedpeft.data.found import FoundCase
from fedpeft.data.phantom.sites import write_phantom


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("FEDPEFT_SHARED", Path(__file__).parents[3] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder}; set FEDPEFT_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom") / "sites", sites=3, seed=0)


@pytest.fixture(scope="session")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kits(tmp_path_factory.mktemp("kits") / "kits", KITS_LINES)


@pytest.fixture(scope="session")
def prostate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prostate(tmp_path_factory.mktemp("prostate"))


@pytest.fixture
def image_table(tmp_path: Path) -> Path:
    """A source with ``photos.TABLE`` and its images."""
    write_tree(tmp_path / "source", {"images": len(TABLE)})
    return write_csv(tmp_path / "source" / "all.csv", ("file", "dx", "centre", "lesion"), TABLE)


@pytest.fixture
def images(tmp_path: Path) -> list[FoundCase]:
    """Two sites of four images; b's test case is of a lesion in a's training."""
    splits = ("training", "training", "validation", "test")
    groups = ("g1", None, "g2", "g3", "g4", "g5", "g6", "g1")
    return [
        FoundCase(
            "ab"[n // 4], f"c{n}", write_image(tmp_path / "in" / f"{n}.jpg"),
            target=n % 2, split=splits[n % 4], group=groups[n],
        )
        for n in range(8)
    ]  # fmt: skip


@pytest.fixture
def make_case(tmp_path: Path) -> Callable[..., Case]:
    """Write image and label; either array can be given."""

    def make(
        name: str = "one",
        image: np.ndarray | None = None,
        label: np.ndarray | None = None,
        affine: np.ndarray | None = None,
        label_affine: np.ndarray | None = None,
        folder: Path | None = None,
    ) -> Case:
        sampled = arrays((9, 8, 7), zlib.crc32(name.encode()))
        folder = (folder or tmp_path) / name
        folder.mkdir(parents=True)
        affine = np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
        paths = folder / "image.nii.gz", folder / "label.nii.gz"
        label_affine = affine if label_affine is None else label_affine
        nibabel.save(nibabel.Nifti1Image(sampled[0] if image is None else image, affine), paths[0])
        nibabel.save(nibabel.Nifti1Image(sampled[1] if label is None else label, label_affine), paths[1])
        return Case(name, *paths)

    return make
