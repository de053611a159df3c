"""Inspect one case closely, before a data set is copied and when one is checked."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.nifti import verify_stream
from fedpeft.data.volumes.volume import Volume, read_volume

# Degrees. Oblique slices are used as they were acquired; near 45 degrees their orientation is ambiguous.
TILT = 40.0
SKEW = 1.0


def inspect_case(
    case: Case, labels: Mapping[int, str], preprocessing: Preprocessing
) -> tuple[Volume | None, list[str]]:
    """Read a case completely, normalised by itself, and check its axes.

    Axes may be in any order and direction and up to ``TILT`` degrees oblique; they must be at right angles.

    Args:
        case: its files.
        labels: index -> name.
        preprocessing: orientation and normalisation.

    Returns:
        The volume, or None if it is faulty, and the faults, one sentence each; both files are checked even if the first
        is faulty.
    """
    faults: list[str] = []
    for path in filter(None, (case.image, case.label)):
        try:
            verify_stream(path)
        except (FileNotFoundError, ValueError) as error:
            faults.append(str(error))
    if faults:
        return None, faults
    try:
        volume = read_volume(replace(case, statistics=None), labels, preprocessing)
    except (FileNotFoundError, ValueError) as error:
        return None, [str(error)]
    faults = _axes(case.image, volume.grid.affine)
    return (None if faults else volume), faults


def _axes(path: Path, affine: np.ndarray) -> list[str]:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    tilt = np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), 0, 1))).max()
    skew = np.degrees(np.arcsin(np.clip(np.abs(directions.T @ directions - np.eye(3)), 0, 1))).max()
    faults = []
    if skew > SKEW:
        faults.append(f"{path}: axes are {skew:.1f} degrees off a right angle, expected at most {SKEW:g}; resample it")
    elif tilt > TILT:
        faults.append(
            f"{path}: an axis is {tilt:.1f} degrees away from the body's nearest one, expected at most {TILT:g}; the "
            "slices' orientation is ambiguous, so resample it"
        )
    return faults
