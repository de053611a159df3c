"""One case looked at closely: used before a data set is copied and when one is checked."""

from collections.abc import Mapping
from dataclasses import replace

from fedpeft.data.datalist import Case
from fedpeft.data.nifti import verify_stream
from fedpeft.data.volumes import Volume, read_volume
from fedpeft.spec.datasets import Preprocessing


def inspect_case(
    case: Case, labels: Mapping[int, str], preprocessing: Preprocessing
) -> tuple[Volume | None, list[str]]:
    """Read a case whole, normalised by itself.

    Args:
        case: its files.
        labels: index -> name.
        preprocessing: orientation and normalisation.

    Returns:
        The volume, or None, and what is wrong, one sentence a fault; both files are looked at whatever the first one
        is like.
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
        return read_volume(replace(case, statistics=None), labels, preprocessing), []
    except (FileNotFoundError, ValueError) as error:
        return None, [str(error)]
