"""Read and write NIfTI files, with MONAI's reader; the message of every error names the file and what is broken."""

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import NibabelReader
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

SUFFIXES = (".nii.gz", ".nii")
# The geometry fields of a NIfTI header. Only these are copied from an image to its mask: descriptions and extensions
# may hold a patient's name.
GEOMETRY = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
UNREADABLE = (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, ValueError)


@dataclass(frozen=True)
class Grid:
    """The grid of a file's voxels.

    Attributes:
        shape: voxels along the file's three axes.
        affine: (4, 4) float64, voxel indices to millimetres (right, anterior, superior).
        header: the NIfTI header's geometry fields as they were read.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: dict[str, Any]


def suffix_of(path: str | Path) -> str:
    """``.nii`` or ``.nii.gz``.

    Raises:
        ValueError: the name ends otherwise.
    """
    for suffix in SUFFIXES:
        if str(path).endswith(suffix):
            return suffix
    raise ValueError(f"{path}: expected a name ending in {' or '.join(SUFFIXES)}; convert the file to NIfTI")


def read_nifti(path: str | Path, channel: int | None = None) -> tuple[np.ndarray, Grid]:
    """A file's three-dimensional array in its own axes, and its grid.

    Trailing axes of length 1 are dropped.

    Args:
        path: .nii or .nii.gz.
        channel: index along the fourth axis; None: the file has three axes.

    Returns:
        Scaled intensities, (shape) in the dtype that nibabel gives, and the grid.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not readable NIfTI, not three-dimensional, has no such channel, or its affine is singular.
    """
    path = Path(path)
    suffix_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found, expected a NIfTI file")
    reader = NibabelReader(squeeze_non_spatial_dims=True, mmap=False)
    try:
        array, meta = reader.get_data(reader.read(path))
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as NIfTI ({_first_line(error)}); copy or export it again") from error
    if channel is not None:
        if array.ndim != 4 or not 0 <= channel < array.shape[3]:
            raise ValueError(f"{path}: shape is {array.shape}, expected a fourth axis that has the channel {channel}")
        array = np.ascontiguousarray(array[..., channel])
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{path}: shape is {array.shape}, expected three axes; keep one volume of a series in a file")
    affine = np.asarray(meta["original_affine"], dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path}: affine is {affine.tolist()}, expected an invertible matrix; repair the header")
    return array, Grid(array.shape, affine, {key: meta[key] for key in GEOMETRY})


def verify_stream(path: str | Path) -> None:
    """Decompress a ``.nii.gz`` to its end, which checks its CRC; reading the voxels alone stops before the CRC.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the stream is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: not found, expected a NIfTI file")
    if suffix_of(path) != ".nii.gz":
        return
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip stream ({_first_line(error)}); copy or export it again") from error


def write_mask(path: str | Path, mask: np.ndarray, grid: Grid) -> None:
    """Write a mask as uint8 NIfTI on a grid: a temporary file first, then renamed.

    Args:
        path: .nii or .nii.gz; its folder exists.
        mask: integers 0 to 255 of the grid's shape, in the file's axes.
        grid: grid of the mask's image; its affine and header geometry are copied unchanged.

    Raises:
        ValueError: the mask has another shape or other values than uint8 can hold.
    """
    if mask.shape != grid.shape:
        raise ValueError(f"{path}: mask has shape {mask.shape}, the image's grid {grid.shape}")
    if mask.min() < 0 or mask.max() > 255:
        raise ValueError(f"{path}: mask values are {mask.min()} to {mask.max()}, expected 0 to 255")
    write_nifti(path, mask.astype(np.uint8), grid)


def write_nifti(path: str | Path, array: np.ndarray, grid: Grid) -> None:
    """Write an array atomically as NIfTI on a grid, in the array's own type; float64 becomes float32.

    Args:
        path: .nii or .nii.gz; its folder exists.
        array: in the shape and axes of the grid.
        grid: its affine and header geometry are copied unchanged.
    """
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(grid.shape)
    for key, value in grid.header.items():
        header[key] = value
    # Without an affine, nibabel keeps the copied geometry bit for bit; with one, it would compute the fields again.
    save_nifti(path, nibabel.Nifti1Image(np.ascontiguousarray(array), None, header))


def save_nifti(path: str | Path, image: nibabel.Nifti1Image) -> None:
    """Save under a temporary name in the same folder, then rename, so that a reader never sees half a file."""
    path = Path(path)
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        nibabel.save(image, draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
