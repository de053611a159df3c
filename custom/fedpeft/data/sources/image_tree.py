"""Trees of class folders: the folders above an image give its class and, if they are there, its site and split."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fedpeft.data.found import Found, FoundCase
from fedpeft.data.table import NAMES

ENDINGS = (".jpg", ".jpeg", ".png")
DATASET = "images"
TREES = ("{site}/{class}", "{class}", "{split}/{class}", "{site}/{split}/{class}")
# The site of images whose site is unknown.
ALONE = "site-1"
# Numbers of folders above an image; the last is deeper than any tree, so that images that are too deep are noticed.
DEPTHS = range(6)


def find_in_tree(source: Path, tree: str = TREES[0], labels: Sequence[str] = ()) -> Found:
    """The images of a tree.

    Args:
        source: the tree's folder; names that begin with a dot are ignored.
        tree: the meaning of the folders above an image, one of ``TREES``. Without sites all images belong to
            ``site-1``.
        labels: the classes in the order of their indices; empty: the folders' names, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: the tree is unknown.
    """
    if tree not in TREES:
        raise ValueError(f"tree is {tree!r}, expected one of {', '.join(TREES)}")
    said = [part.strip("{}") for part in tree.split("/")]
    folders, others = _folders(source)
    right = {folder: dict(zip(said, folder.parts, strict=True)) for folder in folders if len(folder.parts) == len(said)}
    found = Found(source, DATASET, labels or sorted_labels(place["class"] for place in right.values()))
    found.notes += [f"{others} files in {source} are neither JPEG nor PNG by name and were left out"] * bool(others)
    cases: list[tuple[FoundCase, str]] = []
    for folder, names in folders.items():
        if fault := _fault(right.get(folder), tree, found.labels):
            found.faults.append(f"{source / folder}: {len(names)} images: {fault}")
            continue
        place = right[folder]
        split = NAMES[place["split"].lower()] if "split" in place else None
        target = index_of(place["class"], found.labels)
        for path in (folder / name for name in names):
            case = FoundCase(place.get("site", ALONE), "", source / path, target=target, split=split)
            cases.append((case, path.as_posix()))
    found.cases = with_names(cases)
    return found


def sorted_labels(names: Iterable[str]) -> list[str]:
    """The different names in order: numbers first, by value, then words."""
    return sorted(set(names), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def index_of(text: str, labels: Sequence[str]) -> int | None:
    """Index of the class that a name or an index as text stands for; None if it is not one of the labels."""
    if text in labels:
        return labels.index(text)
    return int(text) if text.isdecimal() and int(text) < len(labels) else None


def with_names(cases: Sequence[tuple[FoundCase, str]]) -> list[FoundCase]:
    """Name cases by their files, or by their complete paths below the source if files in several folders share a name.

    Args:
        cases: each with its path below the source, with forward slashes.
    """
    stems = {PurePosixPath(path).stem for _, path in cases}
    if len(stems) == len(cases):
        return [replace(case, case=PurePosixPath(path).stem) for case, path in cases]
    return [replace(case, case="-".join(PurePosixPath(path).with_suffix("").parts)) for case, path in cases]


def _folders(source: Path) -> tuple[dict[PurePosixPath, list[str]], int]:
    """Names of images by their folder, and the number of files whose names are not those of images."""
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not found, expected a folder of class folders")
    folders: dict[PurePosixPath, list[str]] = {}
    others = 0
    # Not rglob, which does not follow links: data sets are often links into a larger disk.
    for path in sorted(path for depth in DEPTHS for path in source.glob("*/" * depth + "*")):
        below = PurePosixPath(path.relative_to(source).as_posix())
        if any(part.startswith(".") for part in below.parts) or path.is_dir():
            continue
        if path.suffix.lower() in ENDINGS:
            folders.setdefault(below.parent, []).append(below.name)
        else:
            others += 1
    if not folders:
        raise FileNotFoundError(f"{source}: no image found in it, expected {', '.join(ENDINGS)} in class folders")
    return folders, others


def _fault(place: dict[str, str] | None, tree: str, labels: Sequence[str]) -> str:
    if place is None:
        return f"expected {tree}/<image>; see --tree"
    if index_of(place["class"], labels) is None:
        return f"class is {place['class']!r}, expected {', '.join(labels)}"
    if place.get("split", "test").lower() not in NAMES:
        return f"split is {place['split']!r}, expected {', '.join(NAMES)}"
    return ""
