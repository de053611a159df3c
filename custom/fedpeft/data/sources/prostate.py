"""The six-hospital prostate MR collection of Liu et al. (SAML, MICCAI 2020), with FLAP-SAM's published test cases.

Some hospitals' labels have zones, 1 and 2. The published preprocessing merges them into one prostate, and so does this
layout (``merge``).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from fedpeft.data.sources.layout import Assignment, Layout, Lines, register_layout


@dataclass(frozen=True)
class Hospital:
    """A site.

    Attributes:
        letter: its name in the paper's tables.
        cases: number of its cases.
        test: numbers of the test cases.
    """

    letter: str
    cases: int
    test: tuple[int, ...]


HOSPITALS = {
    "RUNMC": Hospital("A", 30, (3, 8, 12, 15, 18, 26)),
    "BMC": Hospital("B", 30, (3, 8, 12, 15, 18, 26)),
    "I2CVB": Hospital("C", 19, (3, 8, 13, 15)),
    "UCL": Hospital("D", 13, (1, 32, 34)),
    "BIDMC": Hospital("E", 12, (0, 4, 9)),
    "HK": Hospital("F", 12, (38, 41, 46)),
}
# Capitals differ between hospitals, and so does the number of digits.
FILE = re.compile(rf"({'|'.join(HOSPITALS)})/case(\d+)(_segmentation)?\.nii\.gz", re.IGNORECASE)


def identify(path: str) -> tuple[str, str] | None:
    """Case and kind of a file such as ``RUNMC/Case00.nii.gz`` or ``HK/case0038_Segmentation.nii.gz``."""
    match = FILE.fullmatch(path)
    return match and (f"{match[1].upper()}/Case{int(match[2]):02d}", "label" if match[3] else "image")


def assign(cases: Collection[str], lines: Lines = ()) -> Assignment:
    """Splits from the published numbers.

    Args:
        cases: such as "RUNMC/Case00".
        lines: not used, the layout has no table.
    """
    found = Assignment()
    for site, hospital in HOSPITALS.items():
        numbers = {int(name.removeprefix(f"{site}/Case")): name for name in cases if name.startswith(f"{site}/")}
        if len(numbers) != hospital.cases:
            found.faults.append(f"{site}: {len(numbers)} cases, expected the published {hospital.cases}")
        missing = [number for number in hospital.test if numbers and number not in numbers]
        found.faults += [f"{site}: no test case {site}/Case{number:02d}.nii.gz, expected it" for number in missing]
        for number, name in sorted(numbers.items()):
            found.cases[name] = site, "test" if number in hospital.test else "training"
    return found


PROSTATE = register_layout(
    Layout(
        name="prostate",
        form=f"<hospital>/Case00.nii.gz and Case00_segmentation.nii.gz for {', '.join(HOSPITALS)}",
        identify=identify,
        assign=assign,
        merge={2: 1},
    )
)
