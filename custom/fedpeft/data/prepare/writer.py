"""The one writer of prepared folders: it reads every file first, then copies all of them or writes nothing.

A source says which file belongs to which case, site and split. ``volumes/prepare.py`` and ``images/prepare.py``
implement what differs between volumes and images.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fedpeft.common.faults import FaultError
from fedpeft.common.folders import building, refuse_existing
from fedpeft.config.datasets import dataset
from fedpeft.data.datalist import SPLITS, Case, read_sites, write_datalist
from fedpeft.data.found import VALUES, Found, FoundCase, spelled
from fedpeft.data.modalities import modality
from fedpeft.data.prepare.staging import SPLIT_FILE, Meter, Prepared, Progress, no_progress, no_space
from fedpeft.data.table import write_splits, write_table

CLEAN_FILE = "lesion_clean_test.csv"
# A site's folder has the name of its FLARE client; a case's name becomes that of a file or folder.
SITE = re.compile(r"[A-Za-z0-9_-]+")
# Of the cases that share a fault, a message names as many and counts the others.
SHOWN = 3
CASE = re.compile(r"[^./\\\0][^/\\\0]*")


def write_folder(found: Found, out: str | Path, progress: Progress = no_progress) -> Prepared:
    """Read every file, then copy all cases to ``<out>/<site>/`` and write datalists and ``split.csv``.

    If any group is known, ``lesion_clean_test.csv`` lists the test cases whose group is known and occurs in no training
    or validation case of any site.

    Args:
        found: the cases, with site and split chosen; a site may have test cases alone, to evaluate other sites' models.
        out: folder to make; it is complete or absent.
        progress: called before each file is read or copied, and at the end.

    Raises:
        FileExistsError: ``out`` exists and is not empty.
        FaultError: the source, a file, name, class or split is faulty; all faults are listed, nothing is written.
        ValueError: the data set is unknown, or labelled for another task than the cases.
    """
    refuse_existing(out)
    kind = modality(dataset(found.dataset).task)
    kind.prepare.refuse_others(found)
    cases = sorted(found.cases, key=lambda case: (case.site, case.case))
    files = [file for case in cases for file in kind.prepare.files_of(case)]
    meter = Meter(progress, [*files, *files, *kind.prepare.files_for_statistics(found)])
    faults = [*found.faults, *_faults(cases, found.labels)]
    of_cases: list[tuple[str, str]] = []
    for case in cases:
        meter.at(f"reading {case.site}/{case.case}", *kind.prepare.files_of(case))
        of_cases += [(f"{case.site}/{case.case}", fault) for fault in kind.prepare.inspect(case, found)]
    faults += _alike(of_cases, found.naming)
    faults += no_space(files, Path(out))
    if faults:
        raise FaultError(f"{found.source} cannot be prepared", faults)
    merged = 0
    clean, counts = clean_test(cases)
    with building(out) as draft:
        for site in sorted({case.site for case in cases}):
            merged += _write_site(draft / site, [case for case in cases if case.site == site], found, meter)
        write_splits(draft / SPLIT_FILE, {(case.site, case.case): str(case.split) for case in cases})
        if counts:
            write_table(draft / CLEAN_FILE, ("site", "case"), ((case.site, case.case) for case in clean))
    meter.end()
    return Prepared(read_sites(out), [*found.notes, *_merged(found, merged), *counts])


def clean_test(cases: Sequence[FoundCase]) -> tuple[list[FoundCase], list[str]]:
    """Test cases whose group is known and occurs in no training or validation case, and a note with counts.

    Returns:
        The cases and the note; both are empty if no group is known.
    """
    if not any(case.group for case in cases):
        return [], []
    seen = {case.group for case in cases if case.split != "test"}
    test = [case for case in cases if case.split == "test"]
    clean = [case for case in test if case.group and case.group not in seen]
    unknown = sum(not case.group for case in test)
    return clean, [
        f"{CLEAN_FILE}: {len(clean)} of {len(test)} test cases show a lesion or patient that no training or validation "
        f"case shows; {len(test) - len(clean) - unknown} share one with them, of {unknown} it is unknown"
    ]


def _faults(cases: Sequence[FoundCase], labels: Sequence[str]) -> Iterator[str]:
    """What is wrong with names, labels and splits."""
    if not cases:
        yield "no case, expected at least one"
    if len(set(labels)) < max(2, len(labels)):
        yield f"labels are {', '.join(labels) or 'missing'}, expected two or more, each once"
    seen: dict[tuple[str, str], Path] = {}
    for case in cases:
        if not SITE.fullmatch(case.site):
            yield f"{case.image}: site is {case.site!r}, expected letters, digits, - and _ only"
        if not CASE.fullmatch(case.case):
            yield f"{case.image}: case is {case.case!r}, expected the name of a file, not hidden"
        if case.split not in SPLITS:
            yield f"{case.image}: split is {case.split!r}, expected {', '.join(SPLITS)}"
        key = case.site, case.case
        if key in seen:
            yield f"{case.image}: is called {'/'.join(key)}, as is {seen[key]}; keep or rename one"
        seen[key] = case.image


def _alike(faults: Iterable[tuple[str, str]], naming: str) -> Iterator[str]:
    """Faults of cases; cases whose labels have the same odd values share one, which names the first few of them."""
    having: dict[tuple[str, ...], list[str]] = {}
    for case, fault in faults:
        _, of_values, values = fault.partition(VALUES)
        having.setdefault((values,) if of_values else (case, fault), []).append(f"{case}: {fault}")
    for key, same in having.items():
        hint = f"; {naming} names them" * bool(naming and len(key) == 1)
        if len(same) == 1:
            yield same[0] + hint
            continue
        names = ", ".join(text.partition(":")[0] for text in same[:SHOWN])
        more = f" and {len(same) - SHOWN} more" * (len(same) > SHOWN)
        yield f"{len(same)} cases ({names}{more}){VALUES}{key[0]}{hint}"


def _write_site(folder: Path, found_cases: Sequence[FoundCase], found: Found, meter: Meter) -> int:
    """Write one site's folder; returns how many label files were changed by merging."""
    entry = dataset(found.dataset)
    kind, merged = modality(entry.task).prepare, 0
    cases: dict[str, list[Case]] = {split: [] for split in SPLITS}
    for item in found_cases:
        meter.at(f"copying {item.site}/{item.case}", *kind.files_of(item))
        case, changed = kind.copy(item, folder, found)
        cases[str(item.split)].append(case)
        merged += changed
    statistics = kind.statistics(
        cases["training"], found, lambda case: meter.at(f"statistics of {case.site}/{case.case}", case.image)
    )
    write_datalist(folder, found.dataset, dict(enumerate(found.labels)), cases, statistics, entry.task)
    return merged


def _merged(found: Found, count: int) -> list[str]:
    if not found.merge:
        return []
    return [f"label values in {count} of {len(found.cases)} label files were changed: {spelled(found.merge)}"]
