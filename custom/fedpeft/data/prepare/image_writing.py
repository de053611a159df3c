"""From pictures wherever they lie to one folder a site, with datalist and the splits on record.

Every source of pictures ends here, and so do scripts that choose sites and splits themselves.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpeft.common.faults import FaultError
from fedpeft.common.folders import building, refuse_existing
from fedpeft.config.datasets import dataset
from fedpeft.data.datalist import SPLITS, Case, read_sites, write_datalist
from fedpeft.data.entries import CLASSIFICATION
from fedpeft.data.images.images import read_picture
from fedpeft.data.prepare.staging import SPLIT_FILE, Meter, Prepared, Progress, no_progress, no_space
from fedpeft.data.table import write_rows, write_table

CLEAN_FILE = "lesion_clean_test.csv"
IMAGES = "images"
# A site's folder is called as its FLARE client; a case's name becomes a file's.
SITE = re.compile(r"[A-Za-z0-9_-]+")
CASE = re.compile(r"[^./\\\0][^/\\\0]*")


@dataclass(frozen=True)
class Picture:
    """One case of a source.

    Attributes:
        site: name of the site's folder to make.
        case: name of the picture in it, without an ending.
        split: "training", "validation" or "test"; "" before it is drawn.
        image: JPEG or PNG file, copied as it is.
        target: index of its class.
        group: what it shows, such as a lesion or a patient; "" where that is not known.
    """

    site: str
    case: str
    split: str
    image: Path
    target: int
    group: str = ""


def write_pictures(
    pictures: Sequence[Picture],
    labels: Sequence[str],
    dataset_name: str,
    out: str | Path,
    *,
    source: str | Path = "the pictures",
    faults: Sequence[str] = (),
    notes: Sequence[str] = (),
    progress: Progress = no_progress,
) -> Prepared:
    """Read every picture, then copy all to ``<out>/<site>/images/`` and write datalists and ``split.csv``.

    Where groups are known, ``lesion_clean_test.csv`` lists the test cases whose group is known and occurs in no
    training or validation case of any site.

    Args:
        pictures: with site and split chosen; a site may have test cases alone, to evaluate other sites' models.
        labels: names of the classes in the order of their indices.
        dataset_name: of a row for classification.
        out: folder to make; it is complete or not there at all.
        source: where the pictures come from, for messages.
        faults: what is known to be wrong already.
        notes: what a person should know already.
        progress: called before each file is read or copied, and at the end.

    Raises:
        FileExistsError: ``out`` exists and is not empty.
        FaultError: a picture, name, class or split is faulty; all faults are listed, nothing is written.
        ValueError: ``dataset_name`` is no data set for classification.
    """
    refuse_existing(out)
    if (task := dataset(dataset_name).task) != CLASSIFICATION:
        raise ValueError(f"data set {dataset_name} is for {task}, expected one for {CLASSIFICATION}")
    meter = Meter(progress, [picture.image for picture in pictures for _ in ("read", "copy")])
    faults = [*faults, *_faults(pictures, labels), *_unreadable(pictures, meter)]
    faults += no_space((picture.image for picture in pictures), Path(out))
    if faults:
        raise FaultError(f"{source} cannot be prepared", faults)
    clean, counts = clean_test(pictures)
    with building(out) as draft:
        for site in sorted({picture.site for picture in pictures}):
            own = [picture for picture in pictures if picture.site == site]
            _write_site(draft / site, own, labels, dataset_name, meter)
        write_table(draft / SPLIT_FILE, {(picture.site, picture.case): picture.split for picture in pictures})
        if counts:
            write_rows(draft / CLEAN_FILE, ("site", "case"), sorted((picture.site, picture.case) for picture in clean))
    meter.end()
    return Prepared(read_sites(out), [*notes, *counts])


def clean_test(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """Test pictures whose group is known and in no training or validation picture, and a note with counts.

    Returns:
        Both empty if no group is known.
    """
    if not any(picture.group for picture in pictures):
        return [], []
    seen = {picture.group for picture in pictures if picture.split != "test"}
    test = [picture for picture in pictures if picture.split == "test"]
    clean = [picture for picture in test if picture.group and picture.group not in seen]
    unknown = sum(not picture.group for picture in test)
    return clean, [
        f"{CLEAN_FILE}: {len(clean)} of {len(test)} test cases show a lesion or patient that no training or validation "
        f"case shows; {len(test) - len(clean) - unknown} share one with them, of {unknown} it is unknown"
    ]


def _faults(pictures: Sequence[Picture], labels: Sequence[str]) -> list[str]:
    """What is wrong with names, classes and splits."""
    faults: list[str] = [] if pictures else ["no picture, expected at least one"]
    if len(set(labels)) < max(2, len(labels)):
        faults.append(f"labels are {', '.join(labels) or 'missing'}, expected two or more, each once")
    seen: dict[tuple[str, str], Path] = {}
    for picture in pictures:
        if not SITE.fullmatch(picture.site):
            faults.append(f"{picture.image}: site is {picture.site!r}, expected letters, digits, - and _ only")
        if not CASE.fullmatch(picture.case):
            faults.append(f"{picture.image}: case is {picture.case!r}, expected the name of a file, not hidden")
        if picture.split not in SPLITS:
            faults.append(f"{picture.image}: split is {picture.split!r}, expected {', '.join(SPLITS)}")
        if not 0 <= picture.target < len(labels):
            faults.append(f"{picture.image}: label is {picture.target}, expected 0 to {len(labels) - 1}")
        key = picture.site, picture.case
        if key in seen:
            faults.append(f"{picture.image}: is called {'/'.join(key)}, as is {seen[key]}; keep or rename one")
        seen[key] = picture.image
    return faults


def _unreadable(pictures: Sequence[Picture], meter: Meter) -> list[str]:
    faults = []
    for picture in pictures:
        meter.at(f"reading {picture.site}/{picture.case}", picture.image)
        try:
            read_picture(picture.image)
        except (FileNotFoundError, ValueError) as error:
            faults.append(f"{picture.site}/{picture.case}: {error}")
    return faults


def _write_site(
    folder: Path, pictures: Sequence[Picture], labels: Sequence[str], dataset_name: str, meter: Meter
) -> None:
    cases: dict[str, list[Case]] = {split: [] for split in SPLITS}
    (folder / IMAGES).mkdir(parents=True)
    for picture in sorted(pictures, key=lambda picture: picture.case):
        meter.at(f"copying {picture.site}/{picture.case}", picture.image)
        image = folder / IMAGES / f"{picture.case}{picture.image.suffix.lower()}"
        shutil.copyfile(picture.image, image)
        case = Case(picture.case, image, site=picture.site, target=picture.target, group=picture.group)
        cases[picture.split].append(case)
    write_datalist(folder, dataset_name, dict(enumerate(labels)), cases, None, CLASSIFICATION)
