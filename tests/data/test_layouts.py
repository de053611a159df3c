"""Which file is whose, by names alone: the published counts come out without an image."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from sources import IXI, KITS, PROSTATE, Line, ixi_lines, ixi_name, kits_lines, prostate_names

from fedpeft.config.datasets import DATASETS
from fedpeft.data.found import FoundCase
from fedpeft.data.sources import ixi, kits19, prostate
from fedpeft.data.sources.layout import Assignment, names_below, pair
from fedpeft.data.splits import draw_validation
from fedpeft.data.table import Key

LAYOUTS = {layout.name: layout for layout in (kits19.KITS19, ixi.IXI, prostate.PROSTATE)}


def counts(found: Assignment) -> dict[str, tuple[int, int]]:
    assert found.faults == []
    number = Counter(found.cases.values())
    assert {split for _, split in number} == {"training", "test"}
    return {site: (number[site, "training"], number[site, "test"]) for site in sorted({site for site, _ in number})}


def named(lines: list[Line], columns: tuple[str, ...]) -> list[dict[str, str]]:
    return [dict(zip(columns, line, strict=True)) for line in lines]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_published_counts_come_out_of_generated_tables() -> None:
    lines = named(kits_lines(), kits19.TABLE.columns)
    on_disk = [f"case_{number:05d}" for number in range(300)]
    assert counts(kits19.assign(on_disk, lines)) == dict(sorted(KITS.items()))
    patients = [ixi_name(number, site) for number, site, _ in ixi_lines()]
    assert counts(ixi.assign(patients, named(ixi_lines(), ixi.TABLE.columns))) == dict(sorted(IXI.items()))
    assert counts(prostate.assign(pair(prostate_names(), prostate.PROSTATE))) == dict(sorted(PROSTATE.items()))


def test_the_published_counts_come_out_of_the_published_tables(shared: Path) -> None:
    if not (shared / "flamby").is_dir():
        pytest.skip("the published tables are not at hand")
    lines = read(shared / "flamby" / "fed_kits19" / kits19.TABLE.name)
    assert counts(kits19.assign({line["case_ids"] for line in lines}, lines)) == dict(sorted(KITS.items()))
    lines = read(shared / "flamby" / "fed_ixi" / ixi.TABLE.name)
    patients = [ixi_name(line["Patient ID"], line["Manufacturer"]) for line in lines]
    assert counts(ixi.assign(patients, lines)) == dict(sorted(IXI.items()))


@pytest.mark.parametrize(("layout", "path", "expected"), [
    ("kits19", "case_00000/imaging.nii.gz", ("case_00000", "image")),
    ("kits19", "data/case_00209/segmentation.nii.gz", ("case_00209", "label")),
    ("kits19", "imagesTr/case_00012_0000.nii.gz", ("case_00012", "image")),
    ("kits19", "labelsTr/case_00012.nii.gz", ("case_00012", "label")),
    ("kits19", "imagesTr/case_00012_0001.nii.gz", None),
    ("kits19", "imagesTs/case_00012_0000.nii.gz", None),
    ("kits19", "case_00000/prediction.nii.gz", None),
    ("ixi", "IXI_sample/IXI002-Guys-0828/T1/IXI002-Guys-0828_image.nii.gz", ("IXI002-Guys-0828", "image")),
    ("ixi", "IXI002-Guys-0828/label/IXI002-Guys-0828_label.nii.gz", ("IXI002-Guys-0828", "label")),
    ("ixi", "IXI002-Guys-0828/T2/IXI002-Guys-0828_image.nii.gz", None),
    ("ixi", "IXI002-Guys-0828/T1/IXI012-HH-1211_image.nii.gz", None),
    ("prostate", "RUNMC/Case00.nii.gz", ("RUNMC/Case00", "image")),
    ("prostate", "HK/case0038_Segmentation.nii.gz", ("HK/Case38", "label")),
    ("prostate", "hk/CASE38_segmentation.nii.gz", ("HK/Case38", "label")),
    ("prostate", "ISBI/Case00.nii.gz", None),
    ("prostate", "HK/Case38_segmentation_old.nii.gz", None),
])  # fmt: skip
def test_files_are_told_by_their_names(layout: str, path: str, expected: tuple[str, str] | None) -> None:
    assert LAYOUTS[layout].identify(path) == expected


def test_site_names_can_be_clients_and_every_layout_has_an_entry() -> None:
    from nvflare.apis.utils.format_check import name_check

    for site in (*kits19.SITES, *ixi.SITES, *prostate.HOSPITALS):
        bad, reason = name_check(site, "client")
        assert not bad, reason
    assert [hospital.letter for hospital in prostate.HOSPITALS.values()] == list("ABCDEF")
    for name, layout in LAYOUTS.items():
        labels = dict(DATASETS[name].labels)
        assert layout.name == name and set(layout.merge.values()) <= labels.keys() - layout.merge.keys()


def test_faults_of_the_kits_table() -> None:
    lines = [("case_00000", "0", "train"), ("case_00000", "1", "test"), ("case_00001", "6", "train"),
            ("case_00002", "0", "tset"), ("case_00003", "2", "test"), ("case_00004", "", "test")]  # fmt: skip
    found = kits19.assign(["case_00000"], named(lines, kits19.TABLE.columns))
    assert found.cases == {"case_00000": ("site-A", "training")}
    expected = ["line 3: case_00000: is in the table twice", "line 4: case_00001: site_ids is '6', expected 0 to 5",
                "line 5: case_00002: train_test_split is 'tset', expected train or test",
                "line 6: case_00003 (site-C, test): is not on disk", "line 7: case_00004: site_ids is ''"]  # fmt: skip
    assert [fault[: len(text)] for fault, text in zip(found.faults, expected, strict=True)] == expected


def test_faults_of_the_ixi_table_and_a_contradiction() -> None:
    folders = ["IXI002-Guys-0828", "IXI012-HH-1211", "IXI013-HH-1212", "IXI013-IOP-0001", "IXI014-Mars-0001"]
    lines = [("2", "1", "train"), ("12", "1", "test"), ("12", "1", "train"), ("x", "1", "test"), ("13", "3", "test"),
            ("13", "1", "dev"), ("999", "2", "train")]  # fmt: skip
    found = ixi.assign(folders, named(lines, ixi.TABLE.columns))
    assert found.cases == {"IXI012-HH-1211": ("HH", "test")}
    expected = ["folders IXI013-HH-1212 and IXI013-IOP-0001: one number",
                "folder IXI014-Mars-0001: expected IXI<number>-<Guys or HH or IOP>-<number>",
                "line 2: patient 2 (HH, training): the folder is IXI002-Guys-0828, so of Guys; find out which is right",
                "line 4: patient 12 (HH, training): is in the table twice", "line 5: patient x: Patient ID is 'x'",
                "line 6: patient 13: Manufacturer is '3', expected 0 to 2", "line 7: patient 13: Split is 'dev'",
                "line 8: patient 999 (IOP, training): is not on disk, expected a folder IXI999-IOP-"]  # fmt: skip
    assert [fault[: len(text)] for fault, text in zip(found.faults, expected, strict=True)] == expected


def test_faults_of_the_prostate_folders() -> None:
    cases = set(pair(prostate_names(), prostate.PROSTATE)) - {"RUNMC/Case03", "HK/Case40"}
    cases = {name for name in cases if not name.startswith("UCL/")} | {"BMC/Case99"}
    assert prostate.assign(cases).faults == [
        "RUNMC: 29 cases, expected the published 30", "RUNMC: no test case RUNMC/Case03.nii.gz, expected it",
        "BMC: 31 cases, expected the published 30", "UCL: 0 cases, expected the published 13",
        "HK: 11 cases, expected the published 12",
    ]  # fmt: skip


def test_links_are_followed_and_hidden_files_are_not(tmp_path: Path) -> None:
    for name in ("disk/case_00000/imaging.nii.gz", "source/case_00001/._imaging.nii.gz", "source/.git/a/image.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "source" / "case_00000").symlink_to(tmp_path / "disk" / "case_00000")
    assert names_below(tmp_path / "source") == ["case_00000/imaging.nii.gz"]
    with pytest.raises(FileNotFoundError, match="absent: not found, expected a folder"):
        names_below(tmp_path / "absent")


def moved_by(splits: Mapping[Key, str], share: float, seed: int) -> tuple[dict[Key, str | None], list[str]]:
    cases = [FoundCase(*key, Path("image.nii.gz"), split=split) for key, split in splits.items()]
    moved, faults = draw_validation(cases, share, seed)
    return {(case.site, case.case): case.split for case in moved}, faults


def test_a_share_of_the_training_cases_moves_to_validation() -> None:
    splits = {(site, f"{number:02d}"): split for site, (train, test) in KITS.items()
              for number, split in enumerate(["training"] * train + ["test"] * test)}  # fmt: skip
    moved, faults = moved_by(splits, 0.1, 3)
    assert not faults and moved == moved_by(splits, 0.1, 3)[0] != moved_by(splits, 0.1, 4)[0]
    number = Counter((site, split) for (site, _), split in moved.items())
    assert [number[site, "validation"] for site in KITS] == [1, 1, 1, 1, 1, 2]
    assert all(moved[key] == split for key, split in splits.items() if split == "test")
    # A site's draw is its own: the others do not matter.
    alone = {key: split for key, split in splits.items() if key[0] == "site-C"}
    assert moved_by(alone, 0.1, 3)[0] == {key: moved[key] for key in alone}
    assert moved_by({("a", "1"): "training"}, 0.1, 0)[1][0].startswith("a: 1 training cases or groups, 1 of them")
    for share, seed in ((0.0, 0), (1.0, 0), (0.1, -1)):
        with pytest.raises(ValueError, match="share of validation"):
            moved_by(splits, share, seed)
