"""IXI-Tiny as FLamby unpacks it, with the sites and splits of Fed-IXI.

The hospital is part of every name (IXI002-Guys-0828). FLamby's table has it too, as a number; a patient whose name and
table disagree is a fault.
"""

import re
from collections.abc import Collection

from fedpeft.data.sources.layout import Assignment, Layout, Lines, Table, register_layout
from fedpeft.data.table import NAMES

# In the order of the table's column Manufacturer: 0, 1, 2.
SITES = ("Guys", "HH", "IOP")
TABLE = Table(
    "metadata_tiny.csv", ("Patient ID", "Manufacturer", "Split"),
    "FLamby's flamby/datasets/fed_ixi/metadata/metadata_tiny.csv",
)  # fmt: skip
FILE = re.compile(r"(?:IXI_sample/)?(IXI[^/]+)/(T1|label)/\1[^/]*\.nii\.gz")
PATIENT = re.compile(r"IXI(\d+)-([A-Za-z]+)-\d+")


def identify(path: str) -> tuple[str, str] | None:
    """Patient and kind of a file such as ``IXI_sample/IXI002-Guys-0828/T1/IXI002-Guys-0828_image.nii.gz``."""
    match = FILE.fullmatch(path)
    return match and (match[1], "image" if match[2] == "T1" else "label")


def assign(cases: Collection[str], lines: Lines) -> Assignment:
    """Sites from the names, splits from FLamby's table.

    Args:
        cases: such as "IXI002-Guys-0828"; patients that are not in the table are not part of Fed-IXI.
        lines: of the table.
    """
    found = Assignment()
    patients = _by_number(cases, found.faults)
    for number, line in enumerate(lines, start=2):
        patient, maker, value = ((line[column] or "").strip() for column in TABLE.columns)
        where, split = f"line {number}: patient {patient}", NAMES.get(value.lower())
        if not patient.isdecimal():
            found.faults.append(f"{where}: Patient ID is {patient!r}, expected a number")
        elif maker not in map(str, range(len(SITES))):
            found.faults.append(f"{where}: Manufacturer is {maker!r}, expected 0 to {len(SITES) - 1}")
        elif split is None:
            found.faults.append(f"{where}: Split is {value!r}, expected train or test")
        else:
            fault = _place(found, patients.get(int(patient)), SITES[int(maker)], split, int(patient))
            found.faults += [f"{where} ({SITES[int(maker)]}, {split}): {fault}"] if fault else []
    return found


def _place(found: Assignment, patient: tuple[str, str] | None, site: str, split: str, number: int) -> str:
    """Add a patient to the assignment, or return the fault that prevents it; "" if there is none."""
    if patient is None:
        return f"is not on disk, expected a folder IXI{number:03d}-{site}-..."
    name, hospital = patient
    if hospital != site:
        return f"the folder is {name}, so of {hospital}; find out which is right"
    if name in found.cases:
        return "is in the table twice, expected once"
    found.cases[name] = site, split
    return ""


def _by_number(cases: Collection[str], faults: list[str]) -> dict[int, tuple[str, str]]:
    """Folder name and site by the patient's number."""
    patients: dict[int, tuple[str, str]] = {}
    for name in sorted(cases):
        match = PATIENT.fullmatch(name)
        if match is None or match[2] not in SITES:
            faults.append(f"folder {name}: expected IXI<number>-<{' or '.join(SITES)}>-<number>")
        elif int(match[1]) in patients:
            faults.append(f"folders {patients[int(match[1])][0]} and {name}: one number, expected one folder a patient")
        else:
            patients[int(match[1])] = name, match[2]
    return patients


IXI = register_layout(
    Layout(
        name="ixi",
        form="IXI_sample/<patient>/T1/<patient>_image.nii.gz and label/<patient>_label.nii.gz, <patient> being such as "
        "IXI002-Guys-0828",
        identify=identify,
        assign=assign,
        table=TABLE,
    )
)
