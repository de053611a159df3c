"""Orientation, spacing and faults: what goes in as NIfTI comes out as NIfTI on the same grid."""

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from toy import LABELS, arrays

from fedpeft.config.datasets import Preprocessing
from fedpeft.data.datalist import Case
from fedpeft.data.volumes.nifti import verify_stream
from fedpeft.data.volumes.normalise import Statistics, normalise, statistics_of
from fedpeft.data.volumes.volume import read_volume, save_mask, site_statistics, to_original_grid

CODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]
PLAIN = Preprocessing()


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    a, b, c = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -7, 20)], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_comes_back(codes: str, degrees: tuple[float, float, float], tmp_path: Path) -> None:
    image, label = arrays((11, 9, 7))
    spacing = np.array([0.7, 1.3, 5.0])
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) * spacing
    affine[:3, 3] = -30, 12.5, 7
    canonical = nibabel.Nifti1Image(image, affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
    )
    stored, stored_label = canonical.as_reoriented(turn), nibabel.Nifti1Image(label, affine).as_reoriented(turn)
    case = Case("one", tmp_path / "image.nii", tmp_path / "label.nii.gz")
    nibabel.save(stored, case.image)
    nibabel.save(stored_label, case.label)

    volume = read_volume(case, LABELS, PLAIN)
    assert tuple(volume.image.shape) == (11, 9, 7)
    np.testing.assert_allclose(volume.spacing, spacing, rtol=1e-5)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(volume.label.numpy(), label)
    np.testing.assert_allclose(volume.image.numpy(), normalise(image, volume.statistics, PLAIN), atol=1e-5)
    np.testing.assert_array_equal(to_original_grid(volume.label, volume), np.asanyarray(stored_label.dataobj))

    save_mask(tmp_path / "mask.nii.gz", volume.label, volume)
    mask, source = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(case.image)
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj), np.asanyarray(stored_label.dataobj))
    np.testing.assert_array_equal(mask.affine, source.affine)
    for key in ("pixdim", "qform_code", "sform_code", "srow_x", "quatern_b", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[key], source.header[key])
    assert mask.get_data_dtype() == np.uint8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.nii", "label.nii.gz", "mask.nii.gz"]


def test_real_volumes_come_back(shared: Path, tmp_path: Path) -> None:
    images = sorted((shared / "gm_challenge").glob("*T2starw.nii.gz"))
    if not images:
        pytest.skip("gm_challenge is not among the real images")
    for image in images:
        label = Path(str(image).replace(".nii.gz", "_seg-manual.nii.gz"))
        volume = read_volume(Case(image.name, image, label), {0: "background", 1: "cord"}, PLAIN)
        save_mask(tmp_path / "mask.nii.gz", volume.label, volume)
        mask, source, truth = (nibabel.load(path) for path in (tmp_path / "mask.nii.gz", image, label))
        np.testing.assert_array_equal(mask.affine, source.affine)
        np.testing.assert_array_equal(np.asanyarray(mask.dataobj), np.asanyarray(truth.dataobj))
        np.testing.assert_allclose(volume.spacing, source.header.get_zooms()[:3], rtol=1e-4)


def test_a_mask_carries_no_description(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = make_case()
    image = nibabel.load(case.image)
    image.header["descrip"] = b"Jane Doe"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header), tmp_path / "named.nii")
    volume = read_volume(Case("one", tmp_path / "named.nii"), LABELS, PLAIN)
    save_mask(tmp_path / "mask.nii", np.zeros(volume.image.shape), volume)
    assert b"Jane" in (tmp_path / "named.nii").read_bytes()
    assert b"Jane" not in (tmp_path / "mask.nii").read_bytes()


def test_one_volume_in_four_dimensions_and_float_labels(make_case: Callable[..., Case]) -> None:
    image, label = arrays((9, 8, 7))
    volume = read_volume(make_case(image=image[..., None], label=label.astype(np.float64)), LABELS, PLAIN)
    assert tuple(volume.image.shape) == (9, 8, 7)
    np.testing.assert_array_equal(volume.label.numpy(), label)


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    array = array.astype(np.float32)
    array[0, 0, 0] = value
    return array


IMAGE, LABEL = arrays((9, 8, 7))
SHIFTED = np.diag([1.0, 2.0, 3.0, 1.0])
SHIFTED[0, 3] = 0.01
FAULTS = [
    ("image", {"image": with_value(IMAGE, np.nan)}, "NaN"),
    ("image", {"image": with_value(IMAGE, np.inf)}, "infinite"),
    ("image", {"image": np.full((9, 8, 7), 3, np.int16)}, "every voxel is 3"),
    ("image", {"image": np.stack([IMAGE, IMAGE], -1)}, "three axes"),
    ("image", {"image": IMAGE[..., 0]}, "three axes"),
    ("label", {"label": LABEL[:-1]}, r"\(8, 8, 7\).*\(9, 8, 7\)"),
    ("label", {"label": with_value(LABEL, 7).astype(np.uint8)}, r"\[7\] are not in the table"),
    ("label", {"label": with_value(LABEL, -1)}, r"\[-1\] are not in the table"),
    ("label", {"label": with_value(LABEL, 0.5)}, "whole numbers"),
    ("label", {"label": with_value(LABEL, np.nan)}, "whole numbers"),
    ("label", {"label_affine": SHIFTED}, "affine differs .* 0.01"),
]


@pytest.mark.parametrize(("file", "changes", "text"), FAULTS)
def test_a_fault_names_its_file(file: str, changes: dict, text: str, make_case: Callable[..., Case]) -> None:
    case = make_case(**changes)
    with pytest.raises(ValueError, match=f"{file}.nii.gz: .*{text}"):
        read_volume(case, LABELS, PLAIN)


@pytest.mark.parametrize("file", ["image", "label"])
@pytest.mark.parametrize("damage", ["truncated", "text", "truncated_plain", "header"])
def test_an_unreadable_file_is_named(file: str, damage: str, make_case: Callable[..., Case]) -> None:
    case = make_case()
    path = getattr(case, file)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_bytes(b"not found")
    elif damage == "truncated_plain":
        path.write_bytes(gzip.compress(gzip.decompress(content)[:400]))
    else:
        path.write_bytes(gzip.compress(b"\0" * 352 + gzip.decompress(content)[352:]))
    with pytest.raises(ValueError, match=f"{path}: cannot be read as NIfTI"):
        read_volume(case, LABELS, PLAIN)


def test_a_flipped_bit_is_found_by_the_checksum(make_case: Callable[..., Case]) -> None:
    path = make_case().image
    verify_stream(path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"{path}: damaged gzip"):
        verify_stream(path)


def test_a_missing_file_and_another_format(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = make_case()
    with pytest.raises(FileNotFoundError, match="absent.nii.gz"):
        read_volume(Case("one", case.image, tmp_path / "absent.nii.gz"), LABELS, PLAIN)
    with pytest.raises(ValueError, match="image.png: expected a name ending in"):
        read_volume(Case("one", tmp_path / "image.png"), LABELS, PLAIN)
    volume = read_volume(case, LABELS, PLAIN)
    with pytest.raises(ValueError, match="mask has shape"):
        to_original_grid(volume.label[:-1], volume)


def test_statistics_are_those_of_all_foreground_voxels(make_case: Callable[..., Case]) -> None:
    images = [arrays((9, 8, 7), seed)[0] * (seed + 1) for seed in range(3)]
    cases = [make_case(str(seed), image=image) for seed, image in enumerate(images)]
    masks = [image > image.min() + 0.05 * (np.percentile(image, 99.5) - image.min()) for image in images]
    voxels = np.concatenate([image[mask] for image, mask in zip(images, masks, strict=True)])
    found = site_statistics(cases, PLAIN)
    np.testing.assert_allclose((found.mean, found.std), (voxels.mean(), voxels.std()), rtol=1e-9)
    assert found.cases == 3


def test_site_statistics_are_used_where_there_are_any(make_case: Callable[..., Case]) -> None:
    case = make_case()
    own = statistics_of([np.asanyarray(nibabel.load(case.image).dataobj)], PLAIN)
    site = Statistics(own.mean + 50, own.std * 2, 8, PLAIN.rule)
    alone = read_volume(case, LABELS, PLAIN)
    at_site = read_volume(Case("one", case.image, None, "a", site), LABELS, PLAIN)
    forced = read_volume(Case("one", case.image, None, "a", site), LABELS, Preprocessing(scope="volume"))
    assert (alone.normalised, at_site.normalised, forced.normalised) == ("volume", "site", "volume")
    assert at_site.statistics == site and alone.statistics == own
    np.testing.assert_allclose(at_site.image.numpy() * 2, alone.image.numpy() - 50 / own.std, atol=1e-4)
    with pytest.raises(ValueError, match="prepare the data again"):
        read_volume(Case("one", case.image, None, "a", site), LABELS, Preprocessing(foreground=0.2))
