"""Look at a volume's headers alone: what can be said about its files without reading their voxels."""

from pathlib import Path

import nibabel
import numpy as np

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.nifti import UNREADABLE, suffix_of
from fedpeft.data.volumes.volume import AXES, TOLERANCE


def glance(case: Case, preprocessing: Preprocessing) -> tuple[int, list[str]]:
    """The number of a case's slices, 0 if it cannot be told, and the faults of its headers, one sentence each.

    The files exist, are NIfTI of three axes, an uncompressed one is as long as its header says, and image and label
    have one shape and affine. Intensities, label values and the end of compressed files are not read: ``fedpeft data
    check`` does that.
    """
    try:
        shape, affine = _header(case.image)
        if case.label is not None:
            _compare(case, shape, affine, *_header(case.label))
    except (FileNotFoundError, ValueError) as error:
        return 0, [str(error)]
    last = next(pair for pair in AXES if preprocessing.orientation[-1] in pair)
    along = [code in last for code in nibabel.aff2axcodes(affine)]
    return (shape[along.index(True)] if True in along else max(shape)), []


def _header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a file; FileNotFoundError or ValueError if it is not as ``glance`` expects."""
    suffix = suffix_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found, expected a NIfTI file; restore it, or prepare the data again")
    try:
        image = nibabel.load(path)
        shape, affine = tuple(image.shape), np.asarray(image.affine, dtype=np.float64)
        size = image.dataobj.offset + int(np.prod(shape)) * image.get_data_dtype().itemsize
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as NIfTI ({str(error).splitlines()[0]}); export it again") from error
    if suffix == ".nii" and path.stat().st_size < size:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes, its header says {size}; copy it again")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{path}: shape is {shape}, expected three axes; keep one volume of a series in a file")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path}: affine is {affine.tolist()}, expected an invertible matrix; repair the header")
    return shape, affine


def _compare(case: Case, shape: tuple[int, ...], affine: np.ndarray, other: tuple[int, ...], its: np.ndarray) -> None:
    """Refuse a label on another grid than its image's."""
    if other != shape:
        raise ValueError(f"{case.label}: shape is {other}, its image {case.image} has {shape}; export both again")
    if (gap := float(np.abs(its - affine).max())) > TOLERANCE:
        raise ValueError(
            f"{case.label}: its affine differs from that of {case.image} by up to {gap:.4g}, expected {TOLERANCE:g} at "
            "most; outline or resample the label on the image's grid"
        )
