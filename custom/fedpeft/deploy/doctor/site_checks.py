"""Checks of a site file and of everything that it names: permit, checkpoints, data sets."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedpeft.common.files import sha256_of
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.methods import METHODS
from fedpeft.data.check import check_files
from fedpeft.data.datalist import SPLITS, Case, Site, read_site
from fedpeft.deploy.doctor.finding import Finding, NotChecked, fault, not_checked, ok, warning
from fedpeft.deploy.doctor.subject import Subject
from fedpeft.training.client.permit import ANY_METHOD, Permit, permit_line

# A message lists so many things and counts the others.
SHOWN = 5
EXAMPLE = ("flap_sam",)
CHECKPOINTS = {*BACKBONES, *(f"{name}-medical" for name in BACKBONES)}


def site_file(subject: Subject) -> Iterator[Finding]:
    """The site file is valid."""
    try:
        site = subject.read_site()
    except (ValueError, OSError) as error:
        yield fault(str(error), "a valid site file", "correct it; admin/README.md describes every field")
        return
    yield ok(f"{site.path}: {len(site.datasets)} data sets, {len(site.checkpoints)} checkpoints, {site.device}")


def permit(subject: Subject) -> Iterator[Finding]:
    """The site permits something, and only methods that exist."""
    stated, site_path = subject.site.permit, subject.site.path
    methods, limit = stated.methods or [], stated.max_upload_bytes
    known = [name for name in methods if name in METHODS or name == ANY_METHOD]
    faults = {
        "no method": not methods,
        f"unknown methods: {', '.join(name for name in methods if name not in known)}": len(known) < len(methods),
        "no max_upload_bytes": not stated.states_limit,
        "max_upload_bytes 0": limit == 0,
    }
    if found := [text for text, is_so in faults.items() if is_so]:
        line = permit_line(stated if limit != 0 else Permit(), *(known or EXAMPLE))
        yield fault(
            "; ".join(found),
            f'names of methods, or "{ANY_METHOD}" for any; a number of bytes above 0, or null for any',
            f"write what the site permits in {site_path}, for instance {line}; fedpeft methods lists names and bytes",
        )
        return
    most = "uploads of any size" if limit is None else f"at most {limit:,} bytes a round"
    yield ok(f"{'any method' if ANY_METHOD in methods else ', '.join(methods)}; {most}")


def checkpoints(subject: Subject) -> Iterator[Finding]:
    """Every file of weights is there and has the stated SHA-256."""
    site = subject.site
    if not site.checkpoints:
        yield ok("none named: only backbones that are shipped with the package can be trained")
    for name, entry in site.checkpoints.items():
        yield _checkpoint(site.path, name, Path(entry.path), entry.sha256)


def _checkpoint(site_path: Path, name: str, path: Path, stated: str | None) -> Finding:
    if name not in CHECKPOINTS:
        known = ", ".join(BACKBONES)
        return warning(name, known, f'no job asks for that name; correct "checkpoints" in {site_path}', of=name)
    if not path.is_file():
        return fault(f"no file {path}", "a file", f"put the weights there, or correct the path in {site_path}", of=name)
    found = sha256_of(path)
    if not stated:
        return warning(
            f"{path}, no SHA-256 stated",
            "its SHA-256",
            f'if the server\'s operator has the same, add "sha256": "{found}" in {site_path}',
            of=name,
        )
    if found != stated:
        return fault(
            f"{path}: SHA-256 {found}",
            stated,
            f"fetch the file again from where it is published, or correct the "
            f"SHA-256 in {site_path} if the server's operator has the same file",
            of=name,
        )
    return ok(f"{path}, SHA-256 as stated", of=name)


def data(subject: Subject) -> Iterator[Finding]:
    """Every data set's files are there and labelled; with ``full``, every case can be read."""
    datasets = subject.site.datasets
    if not datasets:
        raise NotChecked("the site file names no data set")
    for name, path in datasets.items():
        if "{site}" in path:
            yield not_checked(f"{path}: nothing says what the site is called; give --kit DIR or --name", of=name)
            continue
        yield _dataset(name, Path(path), subject.needs.full)


def _dataset(name: str, path: Path, full: bool) -> Finding:
    try:
        faults, warnings, counts = _faults(path, full)
    except (ValueError, OSError) as error:
        faults, warnings, counts = [str(error)], [], ""
    remedy = "repair the files named, or prepare the data again: fedpeft data prepare --help"
    if faults:
        return fault(_listed(faults), "a datalist.json without faults", remedy, of=name)
    if warnings:
        return warning(_listed(warnings), "nothing odd", "look at these cases; a run does not stop for them", of=name)
    how = "every case read" if full else "files there, not read (--full reads them)"
    return ok(f"{path}: {counts}; {how}", of=name)


def _faults(path: Path, full: bool) -> tuple[list[str], list[str], str]:
    """Faults, warnings, and the number of cases in each split."""
    site = read_site(path)
    counts = ", ".join(f"{len(site.splits[split])} {split}" for split in SPLITS)
    if full:
        report = check_files([path])
        return report.faults, report.warnings, counts
    return _visible(site), [], counts


def _visible(site: Site) -> list[str]:
    """Faults that show without reading a case."""
    if not site.splits["training"]:
        return ["training is empty"]
    cases = [(split, case) for split in SPLITS for case in site.splits[split]]
    unread = [f"{file} cannot be read" for _, case in cases for file in _files(case) if not os.access(file, os.R_OK)]
    bare = [f"{split} case {case.case} has no label" for split, case in cases if split != "test" and not case.labelled]
    return unread + bare


def _files(case: Case) -> list[Path]:
    return [file for file in (case.image, case.label) if file is not None]


def _listed(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more
