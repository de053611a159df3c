"""Synthetic hospitals: volumes with two organs and lesions in them, for demonstrations and tests.

The design, fixed before any model was trained on it:

- **Task.** A body with two bean-shaped organs (label 1, both) and one to three lesions inside them (label 2). Tissue
  waves, a fat layer, a spine and vessels lie around them.
- **What a hospital trains on** (``POPULATIONS``): two of the four kinds of lesion (bright, dark, ringed, striped), a
  third of their sizes, a third of the organs' tilts. Each neighbour shares one kind; with three sites, bright lesions
  occur at the first only and striped ones at the third only. Training and validation cases are of this population.
- **What a hospital is tested on.** Three of its five test cases are of its own population; the last two are referred:
  patients of the next site's population, imaged here. A site's own model therefore meets unseen lesions even at home,
  and more of them at the other sites.
- **How a hospital images** (``SCANNERS``, ``GEOMETRIES``). Sites differ in contrast (organs are darker than tissue at
  the second), noise, bias field, blur, intensity units, spacing, matrix and axis codes; the third site's slices are
  oblique.

It shares no code with the generator of the backbone's pretraining images. (seed, site, case) determines everything; the
same call gives the same bytes.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from fedpeft.common.folders import building
from fedpeft.config.datasets import dataset
from fedpeft.data.datalist import SPLITS, Case, write_datalist
from fedpeft.data.phantom.shapes import Anatomy, Scanner, make_volume
from fedpeft.data.volumes.nifti import save_nifti
from fedpeft.data.volumes.volume import site_statistics

VERSION = 1
MARKER = "phantom.json"
COUNTS = {"training": 8, "validation": 3, "test": 5}
REFERRED = 2


@dataclass(frozen=True)
class Geometry:
    """How a site stores its volumes.

    Attributes:
        codes: the file's axis codes.
        shape: voxels along R, A and S.
        spacing: millimetres along R, A and S.
        tilt: degrees by which the slices are tilted about the R axis.
    """

    codes: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    tilt: float = 0.0


# Further sites start over: site 5 has the first population again.
POPULATIONS = (
    Anatomy(kinds=("bright", "ringed"), radius=(7.0, 10.0), tilt=(-30.0, 30.0), spread=(28.0, 32.0)),
    Anatomy(kinds=("ringed", "dark"), radius=(9.0, 13.0), tilt=(30.0, 90.0), spread=(25.0, 29.0)),
    Anatomy(kinds=("dark", "striped"), radius=(11.0, 16.0), tilt=(90.0, 150.0), spread=(28.0, 34.0)),
    Anatomy(kinds=("striped", "bright"), radius=(8.0, 14.0), tilt=(0.0, 60.0), spread=(25.0, 34.0)),
)
SCANNERS = (
    Scanner(tissue=0.40, organ=0.60, contrast=0.28, noise=0.030, bias=0.15, blur=0.10, gain=1000.0, dtype="int16"),
    Scanner(tissue=0.62, organ=0.42, contrast=0.26, noise=0.040, bias=0.25, blur=0.15, gain=180.0, dtype="int16"),
    Scanner(tissue=0.35, organ=0.52, contrast=0.24, noise=0.050, bias=0.35, blur=0.05, gain=4.0, dtype="float32"),
)
GEOMETRIES = (
    Geometry("RAS", (72, 72, 22), (2.0, 2.0, 5.0)),
    Geometry("LPS", (80, 72, 24), (1.8, 2.0, 4.5)),
    Geometry("PIR", (64, 70, 20), (2.2, 2.0, 5.5), tilt=12.0),
)


def write_phantom(out: str | Path, sites: int = 3, seed: int = 0) -> Path:
    """Write ``<out>/site-1`` ... ``site-<sites>``, each with a datalist, statistics and 16 cases.

    The sites have the names that ``nvflare simulator -n`` gives its clients. The folder is complete or absent; an
    earlier phantom at the same path is replaced.

    Args:
        out: folder to make.
        sites: 1 or more.
        seed: 0 or more.

    Returns:
        ``out``.

    Raises:
        ValueError: ``sites`` or ``seed`` is out of range.
        FileExistsError: ``out`` is not empty and not an earlier phantom.
    """
    if sites < 1 or seed < 0:
        raise ValueError(f"sites is {sites}, seed {seed}; expected at least 1 site and a seed of 0 or more")
    out = Path(out)
    if (out / MARKER).is_file():
        shutil.rmtree(out)
    with building(out) as draft:
        referred = [case for site in range(sites) for case in _write_site(draft, site, seed)]
        content = {"version": VERSION, "sites": sites, "seed": seed, "referred": referred}
        (draft / MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return out


def _write_site(root: Path, site: int, seed: int) -> list[str]:
    """Write one site; returns its referred cases as ``<site>/<case>``."""
    name, entry = f"site-{site + 1}", dataset("phantom")
    splits: dict[str, list[Case]] = {split: [] for split in SPLITS}
    referred = []
    order = [split for split in SPLITS for _ in range(COUNTS[split])]
    for number, split in enumerate(order):
        visitor = number >= len(order) - REFERRED
        case = _write_case(root / name, site, number, seed, POPULATIONS[(site + visitor) % len(POPULATIONS)])
        splits[split].append(case)
        referred += [f"{name}/{case.case}"] if visitor else []
    statistics = site_statistics(splits["training"], entry.preprocessing)
    write_datalist(root / name, "phantom", dict(entry.labels or ()), splits, statistics)
    return referred


def _write_case(folder: Path, site: int, number: int, seed: int, anatomy: Anatomy) -> Case:
    rng = np.random.default_rng((seed, site, number))
    geometry, scanner = GEOMETRIES[site % len(GEOMETRIES)], SCANNERS[site % len(SCANNERS)]
    image, label = make_volume(rng, anatomy, scanner, geometry.shape, geometry.spacing, number)
    case = f"case-{number + 1:02d}"
    (folder / case).mkdir(parents=True)
    affine = _affine(rng, geometry)
    paths = {}
    for kind, array in (("image", image), ("label", label)):
        paths[kind] = folder / case / f"{kind}.nii.gz"
        save_nifti(paths[kind], _stored(array, affine, geometry.codes))
    return Case(case, paths["image"], paths["label"], folder.name)


def _affine(rng: np.random.Generator, geometry: Geometry) -> np.ndarray:
    """Affine from voxel indices along R, A, S to millimetres; the origin is near the centre of the volume."""
    angle = np.deg2rad(geometry.tilt)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(geometry.spacing)
    affine[:3, 3] = rng.uniform(-20, 20, 3).round(1) - affine[:3, :3] @ ((np.array(geometry.shape) - 1) / 2)
    return affine


def _stored(array: np.ndarray, affine: np.ndarray, codes: str) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    here = nibabel.orientations.io_orientation(affine)
    wanted = nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(here, wanted))
