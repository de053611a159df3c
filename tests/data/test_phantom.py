"""The synthetic hospitals: the same bytes again, sites that differ, true geometry."""

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedpeft.config.datasets import DATASETS
from fedpeft.data.check import check
from fedpeft.data.datalist import read_sites
from fedpeft.data.phantom.shapes import KINDS, make_volume
from fedpeft.data.phantom.sites import COUNTS, GEOMETRIES, POPULATIONS, SCANNERS, _write_site, write_phantom
from fedpeft.data.volumes.volume import read_volume, site_statistics

ENTRY = DATASETS["phantom"]


def fingerprints(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_bytes_again_and_others_for_another_seed(phantom: Path, tmp_path: Path) -> None:
    again, other = write_phantom(tmp_path / "again", 1, 0), write_phantom(tmp_path / "other", 1, 1)
    # A site does not depend on how many others there are.
    assert fingerprints(again / "site-1") == fingerprints(phantom / "site-1")
    ours, theirs = fingerprints(again / "site-1"), fingerprints(other / "site-1")
    assert ours.keys() == theirs.keys() and not set(ours.values()) & set(theirs.values())


def test_every_file_is_another_and_nothing_is_at_fault(phantom: Path) -> None:
    report = check(phantom)
    assert (report.faults, report.warnings) == ([], [])
    assert len({path.read_bytes() for path in phantom.rglob("image.nii.gz")}) == 3 * sum(COUNTS.values())
    assert sum(path.stat().st_size for path in phantom.rglob("*.nii.gz")) < 20e6


def test_names_counts_and_labels(phantom: Path) -> None:
    sites = read_sites(phantom)
    assert [site.name for site in sites] == ["site-1", "site-2", "site-3"]
    for site in sites:
        assert {split: len(cases) for split, cases in site.splits.items()} == COUNTS
        assert site.labels == dict(ENTRY.labels)
        assert site.statistics == site_statistics(site.cases("training"), ENTRY.preprocessing)


def test_geometry_is_the_sites(phantom: Path) -> None:
    for site, geometry in zip(read_sites(phantom), GEOMETRIES, strict=True):
        for case in site.cases("test"):
            image, label = nibabel.load(case.image), nibabel.load(case.label)
            assert "".join(nibabel.aff2axcodes(image.affine)) == geometry.codes
            np.testing.assert_array_equal(image.affine, label.affine)
            assert label.get_data_dtype() == np.uint8
            volume = read_volume(case, site.labels, ENTRY.preprocessing)
            assert tuple(volume.image.shape) == geometry.shape and volume.normalised == "site"
            np.testing.assert_allclose(volume.spacing, geometry.spacing, rtol=1e-5)
            assert set(volume.label.unique().tolist()) == {0, 1, 2}
    oblique = nibabel.load(read_sites(phantom)[2].cases("test")[0].image).affine
    assert np.count_nonzero(np.abs(oblique[:3, :3]) > 1e-6) == 5


def test_sites_differ_in_what_they_have_seen() -> None:
    seen = POPULATIONS[:3]
    assert len({one.kinds for one in seen}) == len({one.radius for one in seen}) == len({one.tilt for one in seen}) == 3
    assert all(len(one.kinds) == 2 and set(one.kinds) < set(KINDS) for one in POPULATIONS)
    assert {kind for one in seen for kind in one.kinds} == set(KINDS)
    for one, following in zip(seen, seen[1:], strict=False):
        assert len(set(one.kinds) & set(following.kinds)) == 1


def test_the_last_test_cases_are_referred(phantom: Path) -> None:
    content = json.loads((phantom / "phantom.json").read_text())
    assert content["referred"] == [f"site-{site}/case-{number}" for site in (1, 2, 3) for number in (15, 16)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_lesion_lies_in_an_organ_and_looks_like_its_kind(kind: str) -> None:
    anatomy, scanner, geometry = POPULATIONS[2], SCANNERS[0], GEOMETRIES[0]
    anatomy = type(anatomy)((kind,), anatomy.radius, anatomy.tilt, anatomy.spread)
    image, label = make_volume(np.random.default_rng(4), anatomy, scanner, geometry.shape, geometry.spacing, 0)
    inside, organ = image[label == 2] / scanner.gain, image[label == 1] / scanner.gain
    assert 50 < inside.size < organ.size
    gap, spread = inside.mean() - organ.mean(), inside.std()
    if kind in ("bright", "dark"):
        assert abs(gap) > 0.15 and (gap > 0) == (kind == "bright")
    else:
        assert spread > 2 * organ.std()


def test_more_sites_than_entries_and_wrong_numbers(tmp_path: Path) -> None:
    _write_site(tmp_path, 4, 2)
    assert [site.name for site in read_sites(tmp_path)] == ["site-5"]
    with pytest.raises(ValueError, match="sites is 0"):
        write_phantom(tmp_path / "none", 0)


def test_only_an_earlier_phantom_is_replaced(tmp_path: Path) -> None:
    write_phantom(tmp_path / "a", 1)
    write_phantom(tmp_path / "a", 1, seed=3)
    assert json.loads((tmp_path / "a" / "phantom.json").read_text())["seed"] == 3
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not empty"):
        write_phantom(tmp_path / "b")
    assert (tmp_path / "b" / "thesis.tex").is_file() and len(list(tmp_path.iterdir())) == 2
