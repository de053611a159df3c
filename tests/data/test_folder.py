"""Trees of <site>/<case>/ folders: splits from a table or sampled, faults as one list, nothing half-written."""

import csv
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from toy import LABELS

from fedpeft.common.faults import FaultError
from fedpeft.data.check import check
from fedpeft.data.datalist import SPLITS, Case, Site, read_sites
from fedpeft.data.found import FoundCase
from fedpeft.data.prepare.pipeline import Choices, prepare
from fedpeft.data.sources.folder import Tree, find_folder
from fedpeft.data.sources.registry import SOURCES
from fedpeft.data.splits import draw_splits
from fedpeft.data.table import Columns, Key
from fedpeft.data.volumes.volume import read_image

COUNT = 6


@pytest.fixture
def source(tmp_path: Path, make_case: Callable[..., Case]) -> Path:
    for site in ("east", "west"):
        for number in range(COUNT):
            make_case(f"{site}-{number}", folder=tmp_path / "source" / site)
    (tmp_path / "source" / "README.txt").write_text("not a site")
    (tmp_path / "source" / ".git").mkdir()
    return tmp_path / "source"


def prepare_folder(tree: Tree, out: Path, seed: int = 0) -> list[Site]:
    return prepare(find_folder(tree), out, Choices(seed=seed)).sites


def splits_of(keys: Iterable[Key], seed: int) -> tuple[dict[Key, str | None], list[str]]:
    """Drawn splits of volumes by site and case, and the faults."""
    cases, faults = draw_splits([FoundCase(*key, Path("image.nii.gz")) for key in keys], seed)
    return {(case.site, case.case): case.split for case in cases}, faults


def tree(source: Path, **changes: object) -> Tree:
    return Tree(source, "image.nii.gz", "label.nii.gz", **{"labels": LABELS, **changes})


def table(source: Path, lines: list[tuple[str, ...]] | None = None, head: tuple[str, ...] = ("case", "split")) -> Path:
    splits = ("train", "Training", "val", "TEST", "valid", "train")
    lines = lines or [(f"{site}-{n}", splits[n]) for site in ("east", "west") for n in range(COUNT)]
    path = source.parent / "table.csv"
    path.write_text("\n".join(",".join(line) for line in (head, *lines)) + "\n")
    return path


def counts(root: Path) -> dict[str, list[int]]:
    return {site.name: [len(site.splits[split]) for split in SPLITS] for site in read_sites(root)}


def test_random_splits_are_recorded_and_seeded(source: Path, tmp_path: Path) -> None:
    sites = prepare_folder(tree(source), tmp_path / "a", seed=1)
    assert counts(tmp_path / "a") == {"east": [4, 1, 1], "west": [4, 1, 1]}
    assert check(tmp_path / "a").faults == []
    with (tmp_path / "a" / "split.csv").open() as stream:
        recorded = {(line["site"], line["case"]): line["split"] for line in csv.DictReader(stream)}
    listed = {(s.name, case.case): split for s in sites for split in SPLITS for case in s.splits[split]}
    assert recorded == listed == splits_of(listed, 1)[0] != splits_of(listed, 2)[0]
    # A recorded split is a table: it gives the same folder again.
    prepare_folder(tree(source, table=tmp_path / "a" / "split.csv"), tmp_path / "b")
    assert read_sites(tmp_path / "a")[0].splits.keys() == read_sites(tmp_path / "b")[0].splits.keys()
    assert counts(tmp_path / "a") == counts(tmp_path / "b")


def test_shares_of_a_larger_site_and_independence_of_other_sites() -> None:
    keys = [("a", str(n)) for n in range(100)]
    splits, faults = splits_of(keys, 0)
    assert Counter(splits.values()) == {"training": 70, "validation": 10, "test": 20} and not faults
    more, faults = splits_of([*keys, ("0", "x")], 0)
    assert {key: more[key] for key in keys} == splits and "0: 1 cases or groups, expected at least 3" in faults[0]


def test_a_table_decides(source: Path, tmp_path: Path) -> None:
    sites = prepare_folder(tree(source, table=table(source)), tmp_path / "out")
    assert counts(tmp_path / "out") == {"east": [3, 2, 1], "west": [3, 2, 1]}
    assert [case.case for case in sites[0].cases("test")] == ["east-3"]
    for site in sites:
        assert site.statistics is None  # each volume is normalised by itself
        for case in (case for split in SPLITS for case in site.splits[split]):
            assert not case.image.is_symlink()
            assert case.image.read_bytes() == (source / site.name / case.case / "image.nii.gz").read_bytes()
            read_image(case.image)
    assert len(list(source.rglob("*.nii.gz"))) == 4 * COUNT


def test_columns_by_name_and_cases_of_the_same_name(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    for site in ("east", "west"):
        for name in "abc":
            make_case(name, folder=tmp_path / "source" / site)
    source = tmp_path / "source"
    lines = [(site, f"{n}", n, "train") for site in ("east", "west") for n in "abc"]
    path = table(source, lines, ("hospital", "number", "who", "fold"))
    with pytest.raises(FaultError, match=r"case a: found at \['east', 'west'\], expected one"):
        prepare_folder(tree(source, table=path, columns=Columns("who", "fold")), tmp_path / "out")
    prepare_folder(tree(source, table=path, columns=Columns("who", "fold", "hospital")), tmp_path / "out")
    assert counts(tmp_path / "out") == {"east": [3, 0, 0], "west": [3, 0, 0]}


def test_all_faults_are_listed_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    lines = [(f"{site}-{n}", "train") for site in ("east", "west") for n in range(COUNT)]
    lines[1] = ("east-1", "trian")
    lines.remove(("west-2", "train"))
    lines += [("north-0", "test"), ("east-0", "test")]
    (source / "east" / "east-3" / "label.nii.gz").unlink()
    (source / "west" / "west-5" / "image.nii.gz").write_bytes(b"broken")
    with pytest.raises(FaultError) as caught:
        prepare_folder(tree(source, table=table(source, lines)), tmp_path / "out")
    expected = ("split is 'trian'", "case north-0: found at no site", "east/east-0 is in the table twice",
                "west/west-2 is on disk but not in the table", "east-3/label.nii.gz: not found",
                "west-5/image.nii.gz: damaged gzip")  # fmt: skip
    assert len(caught.value.faults) == len(expected)
    for text in expected:
        assert any(text in fault for fault in caught.value.faults) and text in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "table.csv"]


def test_a_site_in_the_table_that_is_not_on_disk(source: Path, tmp_path: Path) -> None:
    lines = [(f"{site}-{n}", site, "train") for site in ("east", "west") for n in range(COUNT)]
    path = table(source, [*lines, ("north-0", "north", "train")], ("case", "site", "split"))
    with pytest.raises(FaultError, match="north/north-0 is not on disk") as caught:
        prepare_folder(tree(source, table=path), tmp_path / "out")
    assert len(caught.value.faults) == 1


def test_splits_are_left_out_only_on_purpose(source: Path, tmp_path: Path) -> None:
    lines = [(f"{site}-{n}", "train" if n else "heldout") for site in ("east", "west") for n in range(COUNT)]
    path = table(source, lines)
    with pytest.raises(FaultError, match="split is 'heldout', expected .* or --ignore-split"):
        prepare_folder(tree(source, table=path), tmp_path / "out")
    prepare_folder(tree(source, table=path, columns=Columns(ignore=("heldout",))), tmp_path / "out")
    assert counts(tmp_path / "out") == {"east": [5, 0, 0], "west": [5, 0, 0]}
    assert not (tmp_path / "out" / "east" / "east-0").exists()


def test_labels_out_of_the_table_of_labels(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FaultError) as caught:
        prepare_folder(tree(source, labels={0: "background", 1: "target"}), tmp_path / "out")
    (fault,) = caught.value.faults
    assert fault.startswith(
        f"{2 * COUNT} cases (east/east-0, east/east-1, east/east-2 and {2 * COUNT - 3} more): label values [2] are not "
    )
    assert fault.endswith("; --labels 1=organ,2=lesion names them")


def test_a_failure_while_copying_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("fedpeft.data.prepare.writer.write_datalist", full)
    with pytest.raises(OSError, match="No space"):
        prepare_folder(tree(source), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_wrong_arguments(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        prepare_folder(tree(tmp_path / "absent"), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no <site>/<case>/"):
        prepare_folder(tree(source / "east" / "east-0"), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="absent.csv"):
        prepare_folder(tree(source, table=tmp_path / "absent.csv"), tmp_path / "out")
    with pytest.raises(ValueError, match="no column 'fold', it has case, split; name one by --split-column"):
        prepare_folder(tree(source, table=table(source), columns=Columns(split="fold")), tmp_path / "out")
    words = Namespace(source=source, out=source)
    with pytest.raises(FileExistsError, match="not empty"):
        SOURCES.find("folder").prepare(words)
    with pytest.raises(ValueError, match="within the case folder"):
        prepare_folder(Tree(source, "../image.nii.gz", "label.nii.gz"), tmp_path / "out")


def test_lgg_as_it_is(shared: Path, tmp_path: Path) -> None:
    source = shared / "lgg"
    if not source.is_dir():
        pytest.skip("lgg is not among the real images")
    prepare_folder(Tree(source, "flair.nii.gz", "mask.nii.gz", source / "manifest.csv"), tmp_path / "lgg")
    assert counts(tmp_path / "lgg") == {"CS": [10, 2, 0], "DU": [28, 6, 0], "FG": [8, 2, 0], "HT": [22, 4, 0]}
