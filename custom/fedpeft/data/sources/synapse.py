"""The abdominal CT of the BTCV challenge (Landman et al. 2015), called Synapse after its host, as two papers use it.

``synapse`` has SAMed's split and eight organs; ``btcv`` has MA-SAM's split and all organs, the adrenal glands as one.
"""

import re
from collections.abc import Collection

from fedpeft.data.sources.image_tree import ALONE
from fedpeft.data.sources.layout import Assignment, Layout, Lines, register_layout

NUMBERS = (*range(1, 11), *range(21, 41))
SAMED_TEST = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
MA_SAM_TEST = (35, 36, 37, 38, 39, 40)
# The organs of the first in the order of their indices, as the challenge numbers them.
SAMED_ORGANS = (1, 2, 3, 4, 6, 7, 8, 11)
LABELS = range(1, 14)
# The challenge's folders, those of the Decathlon's form, or no folder at all.
FILE = re.compile(r"(?:(?:(?:RawData/)?Training/)?(?:img|label)/|imagesTr/|labelsTr/)?(img|label)(\d{4})\.nii\.gz")
FORM = "Training/img/img0001.nii.gz and Training/label/label0001.nii.gz, or img/ and label/, imagesTr/ and labelsTr/"
NOTE = (
    "All scans are of one hospital; --sites N deals training and test scans out to N sites at random. FLAP-SAM's code "
    "weights three clients .39, .32 and .29, but which scans each has is not published."
)


def identify(path: str) -> tuple[str, str] | None:
    """Case and kind of a file such as ``Training/img/img0001.nii.gz``."""
    match = FILE.fullmatch(path)
    return match and (f"case{match[2]}", "image" if match[1] == "img" else "label")


def assign_samed(cases: Collection[str], lines: Lines = ()) -> Assignment:
    """SAMed's 18 training and 12 test scans."""
    return _assigned(cases, SAMED_TEST)


def assign_ma_sam(cases: Collection[str], lines: Lines = ()) -> Assignment:
    """MA-SAM's 24 training and 6 test scans."""
    return _assigned(cases, MA_SAM_TEST)


def _assigned(cases: Collection[str], test: Collection[int]) -> Assignment:
    """All published scans at one site; a missing one is a fault, any other is left out."""
    found = Assignment()
    for number in NUMBERS:
        name = f"case{number:04d}"
        if name in cases:
            found.cases[name] = ALONE, "test" if number in test else "training"
        else:
            found.faults.append(f"{name} is not there, expected img{number:04d}.nii.gz and label{number:04d}.nii.gz")
    return found


SYNAPSE = register_layout(
    Layout(
        name="synapse",
        form=FORM,
        identify=identify,
        assign=assign_samed,
        merge={label: SAMED_ORGANS.index(label) + 1 if label in SAMED_ORGANS else 0 for label in LABELS},
        one_hospital=True,
        note=NOTE,
    )
)
# Labels 12 and 13 are the right and the left adrenal gland.
BTCV = register_layout(
    Layout(
        name="btcv",
        form=FORM,
        identify=identify,
        assign=assign_ma_sam,
        merge={13: 12},
        one_hospital=True,
        note=NOTE,
    )
)
