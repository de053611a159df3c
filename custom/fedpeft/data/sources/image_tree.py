"""Trees of class folders: what a picture shows, and where it belongs, is said by the folders it lies in."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fedpeft.data.prepare.image_preparation import ENDINGS, Found, index_of, sorted_labels, with_names
from fedpeft.data.prepare.image_writing import Picture
from fedpeft.data.table import NAMES

DATASET = "images"
TREES = ("{site}/{class}", "{class}", "{split}/{class}", "{site}/{split}/{class}")
# The site of pictures of which no other is known.
ALONE = "site-1"
# Folders above a picture: deeper than any tree, so that pictures that lie too deep are noticed.
DEPTHS = range(6)


def read_tree(source: Path, tree: str = TREES[0], labels: Sequence[str] = ()) -> Found:
    """The pictures of a tree.

    Args:
        source: the tree's folder; names that begin with a dot are passed over.
        tree: one of ``TREES``: what the folders above a picture say. Without sites all pictures are ``site-1``'s.
        labels: the classes in the order of their indices; empty: the folders' names, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        ValueError: the tree is unknown.
    """
    if tree not in TREES:
        raise ValueError(f"tree is {tree!r}, expected one of {', '.join(TREES)}")
    said = [part.strip("{}") for part in tree.split("/")]
    folders, others = _folders(source)
    right = {folder: dict(zip(said, folder.parts, strict=True)) for folder in folders if len(folder.parts) == len(said)}
    found = Found(source, DATASET, labels or sorted_labels(place["class"] for place in right.values()))
    found.notes += [f"{others} files in {source} are neither JPEG nor PNG by name and were left out"] * bool(others)
    pictures: list[tuple[Picture, str]] = []
    for folder, names in folders.items():
        if fault := _fault(right.get(folder), tree, found.labels):
            found.faults.append(f"{source / folder}: {len(names)} pictures: {fault}")
            continue
        place = right[folder]
        split = NAMES[place["split"].lower()] if "split" in place else ""
        target = index_of(place["class"], found.labels)
        for path in (folder / name for name in names):
            picture = Picture(place.get("site", ALONE), "", split, source / path, target)
            pictures.append((picture, path.as_posix()))
    found.pictures = with_names(pictures)
    return found


def _folders(source: Path) -> tuple[dict[PurePosixPath, list[str]], int]:
    """Names of pictures by the folder they lie in, and how many files are no pictures by their names."""
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
        raise FileNotFoundError(f"{source}: no picture found in it, expected {', '.join(ENDINGS)} in class folders")
    return folders, others


def _fault(place: dict[str, str] | None, tree: str, labels: Sequence[str]) -> str:
    if place is None:
        return f"expected {tree}/<picture>; see --tree"
    if index_of(place["class"], labels) is None:
        return f"class is {place['class']!r}, expected {', '.join(labels)}"
    if place.get("split", "test").lower() not in NAMES:
        return f"split is {place['split']!r}, expected {', '.join(NAMES)}"
    return ""
