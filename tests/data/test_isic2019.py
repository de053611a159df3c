"""Fed-ISIC2019: FLamby's table, the challenge's images, and lesions on two sides of the published split."""

from collections import Counter
from pathlib import Path

import pytest
from photos import ISIC_HEADER, LESIONS, lines_of, write_csv, write_image, write_isic

from fedpeft.common.faults import FaultError
from fedpeft.config.datasets import DATASETS
from fedpeft.data.prepare.pipeline import Choices, prepare
from fedpeft.data.sources import isic2019
from fedpeft.data.sources.isic2019 import find_isic2019, read_lesions

# As published: training and test cases of each centre.
PUBLISHED = ((9930, 2483), (3163, 791), (2691, 672), (1807, 452), (655, 164), (351, 88))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_isic(tmp_path / "source")


def test_sites_splits_and_classes_are_the_tables(source: Path, tmp_path: Path) -> None:
    prepared = prepare(find_isic2019(source), tmp_path / "out", Choices())
    assert [site.name for site in prepared.sites] == ["centre-0", "centre-4"]
    first, second = prepared.sites
    assert first.labels == dict(DATASETS["isic2019"].labels) and first.dataset == "isic2019"
    assert [(c.case, c.target) for c in first.splits["training"]] == [("ISIC_0", 0), ("ISIC_1", 1), ("ISIC_2", 1)]
    assert [(c.case, c.target) for c in second.splits["test"]] == [("ISIC_7", 3)]
    assert not first.splits["validation"]
    deep = source / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input" / "ISIC_0.jpg"
    assert (tmp_path / "out" / "centre-0" / "images" / "ISIC_0.jpg").read_bytes() == deep.read_bytes()
    assert prepared.notes == [f"1 images in {source} are not in train_test_split and were left out"]
    assert not (tmp_path / "out" / "lesion_clean_test.csv").exists()


def test_the_lesion_clean_list(source: Path, tmp_path: Path) -> None:
    found = find_isic2019(source, lesions=source / "lesions.csv")
    prepared = prepare(found, tmp_path / "out", Choices())
    assert lines_of(tmp_path / "out" / "lesion_clean_test.csv") == [{"site": "centre-4", "case": "ISIC_7"}]
    assert prepared.notes[-1] == (
        "lesion_clean_test.csv: 1 of 3 test cases show a lesion or patient that no training or validation case shows; "
        "1 share one with them, of 1 it is unknown"
    )
    groups = {case.case: case.group for site in prepared.sites for split in site.splits.values() for case in split}
    assert {case: group for case, group in groups.items() if group} == {k: v for k, v in LESIONS.items() if v}


@pytest.mark.parametrize("seed", range(4))
def test_random_validation_parts_no_lesion(source: Path, tmp_path: Path, seed: int) -> None:
    found = find_isic2019(source, lesions=source / "lesions.csv")
    prepared = prepare(found, tmp_path / "out", Choices(validation=0.4, seed=seed))
    split = {line["case"]: line["split"] for line in lines_of(tmp_path / "out" / "split.csv")}
    assert split["ISIC_1"] == split["ISIC_2"] != "test"
    assert [len(site.splits["validation"]) for site in prepared.sites] in ([1, 1], [2, 1])
    assert {case for case, value in split.items() if value == "test"} == {"ISIC_3", "ISIC_4", "ISIC_7"}


@pytest.mark.parametrize("image", ["image_id", "image"])
def test_lesions_come_from_either_publishers_table(image: str, tmp_path: Path) -> None:
    lines = [("A", "1"), ("A", "2"), ("", "3"), ("B", "2")]
    faults: list[str] = []
    table = write_csv(tmp_path / "t.csv", ("lesion_id", image), lines)
    assert read_lesions(table, faults) == {"1": "A", "2": "A"}
    assert faults == [f"{table}: line 5: 2 is of lesion B, and of A before"]
    with pytest.raises(ValueError, match="no column 'image_id' or 'image'"):
        read_lesions(write_csv(tmp_path / "u.csv", ("lesion_id", "name"), lines), [])
    with pytest.raises(ValueError, match="no column 'lesion_id'"):
        read_lesions(write_csv(tmp_path / "v.csv", ("image",), [("1",)]), [])


def test_faults_of_table_and_images(source: Path, tmp_path: Path) -> None:
    write_image(source / "part" / "ISIC_0.jpg")
    (source / "ISIC_5.jpg").unlink()
    lines = [("ISIC_0", 0, 0, 0, 0, "train", ""), ("ISIC_1", 0, 0, 9, 0, "train", ""),
            ("ISIC_2", 0, 0, 1, 6, "train", ""), ("ISIC_3", 0, 0, 1, 0, "dev", ""), ("ISIC_4", 0, 0, 1, 0, "test", ""),
            ("ISIC_4", 0, 0, 1, 0, "test", ""), ("ISIC_5", 0, 0, 1, 0, "train", ""),
            ("", 0, 0, 1, 0, "train", "")]  # fmt: skip
    table = write_csv(tmp_path / "t", ISIC_HEADER, lines)
    expected = ["line 2: ISIC_0.jpg is there 2 times", "line 3: ISIC_1: target is '9', expected 0 to 7",
                "line 4: ISIC_2: center is '6', expected 0 to 5",
                "line 5: ISIC_3: fold is 'dev', expected train or test", "line 7: ISIC_4 is in the table twice",
                "line 9: no image", f"line 8: ISIC_5.jpg is not in {source}; fetch it, or give --partial"]  # fmt: skip
    assert find_isic2019(source, table).faults == [f"{table}: {text}" for text in expected]
    found = find_isic2019(source, table, partial=True)
    assert len(found.faults) == 6 and found.notes[0] == f"1 of 8 cases are not in {source} and were left out"


def test_a_partial_copy_is_a_fault_unless_it_is_meant(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "part" / "ISIC_1.jpg").unlink()
    with pytest.raises(FaultError, match="line 3: ISIC_1.jpg is not in"):
        prepare(find_isic2019(source), tmp_path / "out", Choices())
    prepared = prepare(find_isic2019(source, partial=True), tmp_path / "out", Choices())
    assert len(prepared.sites[0].splits["training"]) == 2
    (source / "ISIC_5.jpg").unlink()
    monkeypatch.setattr(isic2019, "SHOWN", 1)
    first, second = find_isic2019(source).faults
    assert "ISIC_1.jpg is not in" in first and second.endswith(f"train_test_split: 1 more are not in {source}")


def test_where_nothing_is(source: Path, tmp_path: Path) -> None:
    (source / "train_test_split").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="train_test_split: not found; give FLamby's .* by --table FILE"):
        find_isic2019(source)
    assert len(find_isic2019(source, tmp_path / "elsewhere").cases) == 8
    with pytest.raises(FileNotFoundError, match="no image found"):
        find_isic2019(write_csv(tmp_path / "bare" / "t.csv", ("image",), []).parent)
    with pytest.raises(ValueError, match="no column 'fold'"):
        find_isic2019(source, write_csv(tmp_path / "t.csv", ("image", "target", "center"), []))


def test_the_published_counts_come_out_of_the_published_table(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "flamby" / "fed_isic2019"
    if not folder.is_dir():
        pytest.skip("the published table is not at hand")
    names = [line["image"] for line in lines_of(folder / "train_test_split")]
    monkeypatch.setattr(isic2019, "_files", lambda source: {name: [Path(f"{name}.jpg")] for name in names})
    found = find_isic2019(folder, lesions=folder / "HAM10000_metadata")
    assert not found.faults
    count = Counter((p.site, p.split) for p in found.cases)
    assert tuple((count[f"centre-{n}", "training"], count[f"centre-{n}", "test"]) for n in range(6)) == PUBLISHED
    assert sum(bool(p.group) for p in found.cases) > 9000
