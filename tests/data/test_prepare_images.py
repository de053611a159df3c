"""Trees and tables of images to folders of sites."""

from collections import Counter
from pathlib import Path

import pytest
from photos import COLUMNS, TABLE, lines_of, write_csv, write_image, write_tree

from fedpeft.common.faults import FaultError
from fedpeft.data.check import check
from fedpeft.data.datalist import Site
from fedpeft.data.prepare.pipeline import Choices, prepare
from fedpeft.data.prepare.staging import SPLIT_FILE, Prepared
from fedpeft.data.sources.image_table import ImageColumns, find_in_table
from fedpeft.data.sources.image_tree import TREES, find_in_tree


def counts(sites: list[Site]) -> dict[str, dict[str, int]]:
    return {site.name: {split: len(cases) for split, cases in site.splits.items()} for site in sites}


def from_tree(source: Path, tree: str, out: Path, labels: tuple[str, ...] = (), **choices: object) -> Prepared:
    return prepare(find_in_tree(source, tree, labels), out, Choices(**choices))


def sampled(count: int) -> dict[str, int]:
    """70 / 10 / 20 of ten or of twenty."""
    return {"training": 7 * count // 10, "validation": count // 10, "test": count // 5}


@pytest.mark.parametrize(("tree", "folders", "expected"), [
    (TREES[0], {"a/nv": 5, "a/mel": 5, "b/nv": 10}, {"a": sampled(10), "b": sampled(10)}),
    (TREES[1], {"nv": 15, "mel": 5}, {"site-1": sampled(20)}),
    (TREES[2], {"Train/nv": 3, "val/mel": 2, "test/mel": 1}, {"site-1": {"training": 3, "validation": 2, "test": 1}}),
    (TREES[3], {"a/training/nv": 3, "a/valid/mel": 2, "b/train/mel": 1},
     {"a": {"training": 3, "validation": 2, "test": 0}, "b": {"training": 1, "validation": 0, "test": 0}}),
])  # fmt: skip
def test_trees(tree: str, folders: dict[str, int], expected: dict, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", folders, ".JPEG")
    (source / ".cache" / "nv").mkdir(parents=True)
    (source / "notes.txt").touch()
    prepared = from_tree(source, tree, tmp_path / "out")
    assert counts(prepared.sites) == expected
    assert prepared.notes == [f"1 files in {source} are neither JPEG nor PNG by name and were left out"]
    by_name = {path.stem: path for path in source.rglob("*.JPEG")}
    found = [case for site in prepared.sites for cases in site.splits.values() for case in cases]
    assert sorted(case.case for case in found) == sorted(by_name)
    for case in found:
        assert case.image == tmp_path / "out" / case.site / "images" / f"{case.case}.jpeg"
        assert case.image.read_bytes() == by_name[case.case].read_bytes()
        assert {0: "mel", 1: "nv"}[case.target] == by_name[case.case].parent.name
    splits = {line["case"]: (line["site"], line["split"]) for line in lines_of(tmp_path / "out" / SPLIT_FILE)}
    assert Counter(splits.values()) == {(s, k): n for s, by in expected.items() for k, n in by.items() if n}
    assert not (tmp_path / "out" / "lesion_clean_test.csv").exists()


def test_names_that_recur_are_told_apart_by_folders(tmp_path: Path) -> None:
    for folder in ("a/nv", "a/mel", "b/nv"):
        for number in range(3):
            write_image(tmp_path / "source" / folder / f"{number}.png")
    sites = from_tree(tmp_path / "source", TREES[0], tmp_path / "out").sites
    cases = [case for site in sites for split in site.splits.values() for case in split]
    assert sorted(case.case for case in cases if case.site == "b") == ["b-nv-0", "b-nv-1", "b-nv-2"]
    assert len({case.case for case in cases}) == 9


def test_given_labels_are_the_order_and_the_limit(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a/nv": 3, "a/mel": 3})
    assert from_tree(source, TREES[0], tmp_path / "one", ("nv", "bcc", "mel")).sites[0].labels == {
        0: "nv", 1: "bcc", 2: "mel"
    }  # fmt: skip
    with pytest.raises(FaultError, match="source/a/mel: 3 images: class is 'mel', expected nv, bcc"):
        from_tree(source, TREES[0], tmp_path / "two", ("nv", "bcc"))
    with pytest.raises(ValueError, match="labels are nv, nv, expected two or more, each once"):
        from_tree(source / "a", TREES[0].replace("{site}/", ""), tmp_path / "three", ("nv", "nv"))


def test_a_table_gives_sites_classes_and_groups(image_table: Path, tmp_path: Path) -> None:
    found = find_in_table(image_table.parent, image_table, COLUMNS)
    prepared = prepare(found, tmp_path / "out", Choices(seed=4))
    cases = {case.case: case for site in prepared.sites for cases in site.splits.values() for case in cases}
    assert set(TABLE) == {
        (f"images/{name}.png", found.labels[case.target], case.site, case.group) for name, case in cases.items()
    }
    split = {line["case"]: line["split"] for line in lines_of(tmp_path / "out" / SPLIT_FILE)}
    by_lesion: dict[str, set[str]] = {}
    for name, case in cases.items():
        by_lesion.setdefault(case.group, set()).add(split[name])
    assert all(len(found) == 1 for found in by_lesion.values())
    assert Counter(next(iter(found)) for found in by_lesion.values()) == {"training": 14, "validation": 2, "test": 4}
    clean = lines_of(tmp_path / "out" / "lesion_clean_test.csv")
    assert {line["case"] for line in clean} == {name for name, value in split.items() if value == "test"}
    assert prepared.notes[-1].startswith("lesion_clean_test.csv: 16 of 16 test cases")
    assert check(tmp_path / "out").warnings == []


def test_a_table_with_splits_indices_and_paths_of_its_own(tmp_path: Path) -> None:
    write_tree(tmp_path / "source", {"deep/images": 4})
    lines = [(f"images/p{n:03d}.png", n % 2, ("train", "TRAIN", "valid", "test")[n]) for n in range(4)]
    table = write_csv(tmp_path / "source" / "deep" / "t.csv", ("image", "label", "split"), lines)
    found = find_in_table(tmp_path / "source", table, labels=["nv", "mel"])
    (site,) = prepare(found, tmp_path / "out", Choices()).sites
    assert (site.name, site.labels) == ("site-1", {0: "nv", 1: "mel"})
    assert [(c.case, c.target) for c in site.splits["training"]] == [("p000", 0), ("p001", 1)]
    assert [(c.case, c.target) for c in site.splits["validation"] + site.splits["test"]] == [("p002", 0), ("p003", 1)]
    with pytest.raises(ValueError, match="no column 'kind', it has image, label, split; name one by --label-column"):
        find_in_table(tmp_path / "source", table, ImageColumns(label="kind"))
    with pytest.raises(ValueError, match="no column 'fold'.*--split-column"):
        find_in_table(tmp_path / "source", table, ImageColumns(split="fold"))


def test_numbers_as_labels_are_sorted_by_value(tmp_path: Path) -> None:
    write_tree(tmp_path / "source", {"images": 12})
    lines = [(f"images/p{n:03d}.png", n) for n in range(12)]
    found = find_in_table(tmp_path / "source", write_csv(tmp_path / "t.csv", ("image", "label"), lines))
    assert found.labels == [str(n) for n in range(12)] and not found.faults
    assert [image.target for image in found.cases] == list(range(12))


@pytest.mark.parametrize("how", ["iid", "dirichlet", "quantity"])
def test_a_partition_keeps_the_pooled_test_set(how: str, image_table: Path, tmp_path: Path) -> None:
    found = find_in_table(image_table.parent, image_table, COLUMNS)
    prepare(found, tmp_path / "natural", Choices(seed=1))
    prepared = prepare(found, tmp_path / how, Choices(partition=how, sites=3, alpha=0.3, seed=1))
    before, after = ({r["case"]: r["split"] for r in lines_of(tmp_path / n / SPLIT_FILE)} for n in ("natural", how))
    assert before == after and set(after.values()) == {"training", "validation", "test"}
    assert [site.name for site in prepared.sites] == ["site-1", "site-2", "site-3"]
    alpha = "" if how == "iid" else ", alpha 0.3"
    assert prepared.notes[0] == f"80 cases dealt out to 3 sites ({how}{alpha}, seed 1); their splits were drawn before"
