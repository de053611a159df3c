"""A look at headers says what it can without reading voxels or pixels, and agrees with the readers."""

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from small_masks import write_small_masks
from toy import LABELS, arrays

from fedpeft.config.preprocessing import Preprocessing
from fedpeft.data.datalist import Case, read_sites
from fedpeft.data.image_masks import check as mask_check
from fedpeft.data.images import images
from fedpeft.data.modalities import MODALITIES, missing, modality
from fedpeft.data.volumes import header
from fedpeft.data.volumes.volume import read_volume

PLAIN = Preprocessing()
SHAPE = (6, 5, 9)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    image, label = arrays(SHAPE)
    made = Case("one", tmp_path / "image.nii", tmp_path / "label.nii.gz")
    nibabel.save(nibabel.Nifti1Image(image, np.diag([1.0, 1.0, 3.0, 1.0])), made.image)
    nibabel.save(nibabel.Nifti1Image(label, np.diag([1.0, 1.0, 3.0, 1.0])), made.label)
    return made


@pytest.mark.parametrize("codes", ["RAS", "SRA", "PIL", "LPS"])
@pytest.mark.parametrize("orientation", ["RAS", "ASR"])
def test_it_counts_the_slices_that_the_reader_gives(case: Case, codes: str, orientation: str) -> None:
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    for path in (case.image, case.label):
        turned = nibabel.load(path).as_reoriented(turn)
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(turned.dataobj).copy(), turned.affine), path)
    preprocessing = Preprocessing(orientation=orientation)
    slices = read_volume(case, LABELS, preprocessing).image.shape[2]
    assert header.glance(case, preprocessing) == (slices, [])


def cut(case: Case) -> None:
    case.image.write_bytes(case.image.read_bytes()[:-100])


def four_axes(case: Case) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4)), case.image)


def label_saved(shape: tuple[int, ...], affine: np.ndarray) -> Callable[[Case], None]:
    return lambda case: nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine), case.label)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda case: case.image.unlink(), "image.nii: not found"),
        (lambda case: case.label.unlink(), "label.nii.gz: not found"),
        (lambda case: case.image.write_bytes(b"text"), "image.nii: cannot be read as NIfTI"),
        (lambda case: case.label.write_bytes(b"text"), "label.nii.gz: cannot be read as NIfTI"),
        (cut, "image.nii: has .* bytes, its header says"),
        (four_axes, r"image.nii: shape is \(4, 4, 4, 2\), expected three axes"),
        (label_saved((4, 4, 4), np.diag([1.0, 1.0, 3.0, 1.0])), r"shape is \(4, 4, 4\), its image .*image.nii has"),
        (label_saved(SHAPE, np.eye(4)), "its affine differs from that of .*image.nii by up to 2"),
    ],
)
def test_faults_are_those_of_the_reader(case: Case, damage: Callable[[Case], None], text: str) -> None:
    damage(case)
    slices, faults = header.glance(case, PLAIN)
    assert slices == 0 and len(faults) == 1
    with pytest.raises((FileNotFoundError, ValueError)):
        read_volume(case, LABELS, PLAIN)
    assert re.search(text, faults[0])


def test_a_trailing_axis_of_one_is_dropped_as_the_reader_drops_it(case: Case) -> None:
    image = nibabel.load(case.image)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata()[..., None], image.affine), case.image)
    assert header.glance(case, PLAIN) == (9, [])
    assert read_volume(case, LABELS, PLAIN).image.shape[2] == 9


def test_no_voxel_is_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", lambda *args: pytest.fail("read"))
    assert header.glance(case, PLAIN) == (9, [])


@pytest.mark.parametrize(
    ("made", "slices"),
    [
        (lambda path: Image.new("RGB", (8, 6)).save(path, "PNG"), 1),
        (lambda path: Image.new("L", (8, 6)).save(path, "JPEG"), 1),
        (lambda path: Image.new("I;16", (8, 6)).save(path, "PNG"), 0),
        (lambda path: Image.new("RGB", (8, 6)).save(path, "GIF"), 0),
        (lambda path: path.write_bytes(b""), 0),
        (lambda path: None, 0),
    ],
)
def test_images_are_what_the_reader_decodes(tmp_path: Path, made: Callable[[Path], object], slices: int) -> None:
    case = Case("one", tmp_path / "image.png", target=0)
    made(case.image)
    found, faults = images.glance(case, PLAIN)
    assert (found, len(faults)) == (slices, 1 - slices)
    if slices:
        images.read_image(case.image)
    else:
        assert str(case.image) in faults[0]
        with pytest.raises((FileNotFoundError, ValueError)):
            images.read_image(case.image)


def test_every_modality_has_a_look_at_its_sites(small_phantom: Path, small_images: Path) -> None:
    for root in (small_phantom, small_images):
        for site in read_sites(root):
            for case in site.splits["training"]:
                slices, faults = modality(site.task).glance(case, PLAIN)
                assert slices > 0 and faults == []
    assert {entry.glance for entry in MODALITIES.values()} == {header.glance, images.glance, mask_check.glance}


def test_the_image_and_the_mask_of_a_segmented_image_are_looked_at(tmp_path: Path) -> None:
    folder = write_small_masks(tmp_path, sites=1, count=1) / "site-1"
    case = Case("a", next(folder.glob("images/*")), next(folder.glob("masks/*")))
    assert case.label is not None
    assert mask_check.glance(case, PLAIN) == (1, [])
    for path, text in ((case.label, "cannot be read as PNG"), (case.image, "cannot be read as JPEG or PNG")):
        path.write_bytes(b"nothing")
        found, faults = mask_check.glance(case, PLAIN)
        assert found == 0 and any(str(path) in fault and text in fault for fault in faults)


def test_without_a_look_of_its_own_a_modality_misses_files_alone(case: Case) -> None:
    assert missing(case, PLAIN) == (0, [])
    case.image.unlink()
    ((fault,),) = missing(case, PLAIN)[1:]
    assert "image.nii: not found" in fault
