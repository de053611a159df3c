"""KiTS19 as the challenge publishes it or in nnU-Net's raw folders, with the sites and splits of Fed-KiTS.

Fed-KiTS (FLamby) is 96 of the challenge's cases at six sites. The sites are anonymous; they have the letters of
FLAP-SAM's tables, site-A to site-F for FLamby's 0 to 5.
"""

import re
from collections.abc import Collection

from fedpeft.data.sources.layout import Assignment, Layout, Lines, Table, register_layout
from fedpeft.data.table import NAMES

SITES = tuple(f"site-{letter}" for letter in "ABCDEF")
TABLE = Table(
    "thresholded_sites.csv", ("case_ids", "site_ids", "train_test_split"),
    "FLamby's flamby/datasets/fed_kits19/metadata/thresholded_sites.csv",
)  # fmt: skip
# A clone of the challenge's repository has the cases in data/.
CHALLENGE = re.compile(r"(?:data/)?(case_\d{5})/(imaging|segmentation)\.nii\.gz")
RAW_IMAGE = re.compile(r"imagesTr/(case_\d{5})_0000\.nii\.gz")
RAW_LABEL = re.compile(r"labelsTr/(case_\d{5})\.nii\.gz")


def identify(path: str) -> tuple[str, str] | None:
    """Case and kind of a file of either layout, such as ``case_00000/imaging.nii.gz``."""
    if match := CHALLENGE.fullmatch(path):
        return match[1], "image" if match[2] == "imaging" else "label"
    for pattern, kind in ((RAW_IMAGE, "image"), (RAW_LABEL, "label")):
        if match := pattern.fullmatch(path):
            return match[1], kind
    return None


def assign(cases: Collection[str], lines: Lines) -> Assignment:
    """Sites and splits from FLamby's table.

    Args:
        cases: such as "case_00000"; those that are not in the table are not part of Fed-KiTS.
        lines: of the table.
    """
    found = Assignment()
    for number, line in enumerate(lines, start=2):
        case, site, value = ((line[column] or "").strip() for column in TABLE.columns)
        where, split = f"line {number}: {case or 'no case'}", NAMES.get(value.lower())
        if site not in map(str, range(len(SITES))):
            found.faults.append(f"{where}: site_ids is {site!r}, expected 0 to {len(SITES) - 1}")
        elif split is None:
            found.faults.append(f"{where}: train_test_split is {value!r}, expected train or test")
        elif case in found.cases:
            found.faults.append(f"{where}: is in the table twice, expected once")
        elif case not in cases:
            found.faults.append(f"{where} ({SITES[int(site)]}, {split}): is not on disk; fetch it from the challenge")
        else:
            found.cases[case] = SITES[int(site)], split
    return found


KITS19 = register_layout(
    Layout(
        name="kits19",
        form="case_00000/imaging.nii.gz and segmentation.nii.gz, or imagesTr/case_00000_0000.nii.gz and "
        "labelsTr/case_00000.nii.gz",
        identify=identify,
        assign=assign,
        table=TABLE,
    )
)
