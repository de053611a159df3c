"""The abdominal CT of the BTCV challenge: SAMed's subset and MA-SAM's."""

from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from photos import lines_of
from sources import call, prepare_layout, stored, write_synapse

from fedpeft.common.faults import FaultError
from fedpeft.config.datasets import dataset
from fedpeft.data.check import check
from fedpeft.data.datalist import read_sites
from fedpeft.data.found import spelled
from fedpeft.data.sources import synapse
from fedpeft.data.volumes.volume import read_volume

# Old label -> new one, as SAMed's README has them; all others are background.
SAMED = {1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 7: 6, 8: 7, 11: 8}


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synapse(tmp_path_factory.mktemp("abdomen"))


@pytest.mark.parametrize(("path", "expected"), [
    ("Training/img/img0001.nii.gz", ("case0001", "image")),
    ("RawData/Training/label/label0040.nii.gz", ("case0040", "label")),
    ("img/img0010.nii.gz", ("case0010", "image")),
    ("labelsTr/label0010.nii.gz", ("case0010", "label")),
    ("img0010.nii.gz", ("case0010", "image")),
    ("Testing/img/img0061.nii.gz", None),
    ("Training/img/img001.nii.gz", None),
    ("img/DET0000101_avg.nii.gz", None),
])  # fmt: skip
def test_files_are_told_by_their_names(path: str, expected: tuple[str, str] | None) -> None:
    assert synapse.identify(path) == expected


@pytest.mark.parametrize(("name", "training", "test", "classes"), [
    ("synapse", [5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40],
     [1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38], 8),
    ("btcv", [*range(1, 11), *range(21, 35)], [35, 36, 37, 38, 39, 40], 12),
])  # fmt: skip
def test_the_published_splits_at_three_sites(
    name: str, training: list[int], test: list[int], classes: int, abdomen: Path, tmp_path: Path
) -> None:
    assert call("prepare", name, "--source", abdomen, "--sites", 3, "--seed", 1, "--out", tmp_path / "out") == 0
    lines = lines_of(tmp_path / "out" / "split.csv")
    for split, numbers in (("training", training), ("test", test)):
        assert sorted(int(line["case"].removeprefix("case")) for line in lines if line["split"] == split) == numbers
    counts = Counter((line["site"], line["split"]) for line in lines)
    assert {counts[f"site-{site}", "training"] for site in (1, 2, 3)} == {len(training) // 3}
    assert {counts[f"site-{site}", "test"] for site in (1, 2, 3)} == {len(test) // 3}
    site = read_sites(tmp_path / "out")[0]
    assert site.classes == classes and site.statistics is None
    assert tuple(site.labels.items()) == dataset(name).labels
    assert check(tmp_path / "out").faults == []


@pytest.mark.parametrize(("layout", "new"), [
    (synapse.SYNAPSE, SAMED), (synapse.BTCV, {**{label: label for label in range(14)}, 13: 12}),
])  # fmt: skip
def test_labels_are_renumbered_on_the_same_grid(
    layout: synapse.Layout, new: dict[int, int], abdomen: Path, tmp_path: Path
) -> None:
    prepared = prepare_layout(layout, abdomen, tmp_path / "out")
    assert prepared.notes == [f"label values in 30 of 30 label files were changed: {spelled(layout.merge)}"]
    (site,) = prepared.sites
    for case in site.cases("training")[:2]:
        source = nibabel.load(abdomen / "Training" / "label" / f"{case.case.replace('case', 'label')}.nii.gz")
        old = np.asanyarray(source.dataobj)
        np.testing.assert_array_equal(stored(case.label), np.vectorize(lambda label: new.get(label, 0))(old))
        assert set(old[old > 0]) == set(range(1, 14))
        for field in ("srow_x", "srow_y", "srow_z", "pixdim", "sform_code", "qform_code"):
            np.testing.assert_array_equal(nibabel.load(case.label).header[field], source.header[field])


@pytest.mark.parametrize(("name", "low", "high"), [("synapse", -125, 275), ("btcv", -200, 250)])
def test_intensities_are_clipped_to_the_published_window(
    name: str, low: int, high: int, abdomen: Path, tmp_path: Path
) -> None:
    layout = {"synapse": synapse.SYNAPSE, "btcv": synapse.BTCV}[name]
    (site,) = prepare_layout(layout, abdomen, tmp_path / "out").sites
    case = site.cases("test")[0]
    found = read_volume(case, site.labels, dataset(name).preprocessing)
    expected = (np.clip(stored(case.image).astype(float), low, high) - low) / (high - low)
    assert found.normalised == "constants" and expected.min() == 0 and expected.max() == 1
    # The file's first two axes point to the left and to the back.
    np.testing.assert_allclose(found.image.numpy(), expected[::-1, ::-1], atol=1e-6)


def test_other_places_of_the_same_files_give_the_same_folders(abdomen: Path, tmp_path: Path) -> None:
    for number, folders in enumerate((("img", "label"), ("imagesTr", "labelsTr"), ("", ""))):
        source = write_synapse(tmp_path / str(number), folders)
        call("prepare", "synapse", "--source", source, "--out", tmp_path / f"out-{number}")
    splits = {(tmp_path / f"out-{number}" / "split.csv").read_text() for number in range(3)}
    assert len(splits) == 1


def test_missing_scans_are_all_listed(tmp_path: Path) -> None:
    source = write_synapse(tmp_path / "source")
    for name in ("img/img0005", "img/img0022", "label/label0022", "label/label0030"):
        (source / "Training" / f"{name}.nii.gz").unlink()
    (source / "Training" / "img" / "img0041.nii.gz").write_bytes(b"")
    with pytest.raises(FaultError) as caught:
        prepare_layout(synapse.SYNAPSE, source, tmp_path / "out")
    form = f"expected {synapse.FORM}"
    assert caught.value.faults == (
        f"{source}: case0022 is not there, expected img0022.nii.gz and label0022.nii.gz",
        f"site-1/case0005: 0 files for the image in {source}; {form}",
        f"site-1/case0030: 0 files for the label in {source}; {form}",
    )


def test_what_becomes_of_labels_is_said_in_words() -> None:
    assert spelled(synapse.SYNAPSE.merge) == (
        "5, 9, 10, 12, 13 become 0; 6 becomes 5; 7 becomes 6; 8 becomes 7; 11 becomes 8"
    )
