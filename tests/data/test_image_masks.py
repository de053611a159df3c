"""Images with masks: files are read as they are, and batches have what the network takes."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import cut, write_image
from PIL import Image

from fedpeft.config.backbones import IMAGENET
from fedpeft.data.cache import Cache
from fedpeft.data.check import check
from fedpeft.data.datalist import Case, read_sites, write_datalist
from fedpeft.data.image_masks.masks import read_mask, write_mask
from fedpeft.data.image_masks.pairs import MaskData, read_pair
from fedpeft.data.volumes.augment.registry import AUGMENTATIONS

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
LABELS = {0: "background", 1: "disc", 2: "cup"}


def palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette([0, 0, 0, 250, 250, 250, 9, 9, 9])
    return image


@pytest.mark.parametrize(("image", "expected"), [
    (Image.fromarray(VALUES), VALUES),
    (Image.fromarray(VALUES * 100), VALUES * 100),
    (palette(VALUES), VALUES),
    (Image.fromarray(VALUES > 0), VALUES > 0),
    (Image.fromarray(np.repeat(VALUES[..., None], 3, axis=2)), VALUES),
])  # fmt: skip
def test_masks_of_every_form_are_read(image: Image.Image, expected: np.ndarray, tmp_path: Path) -> None:
    image.save(tmp_path / "mask.png")
    found = read_mask(tmp_path / "mask.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_written_mask_has_indices_and_colours(tmp_path: Path) -> None:
    write_mask(tmp_path / "deep" / "mask.png", torch.from_numpy(VALUES))
    np.testing.assert_array_equal(read_mask(tmp_path / "deep" / "mask.png"), VALUES)
    with Image.open(tmp_path / "deep" / "mask.png") as image:
        colours = np.array(image.convert("RGB"))
    assert tuple(colours[0, 0]) == (0, 0, 0) and tuple(colours[0, 1]) == (0xE6, 0x9F, 0x00)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["mask.png"]


def coloured(path: Path) -> None:
    Image.fromarray(np.stack([VALUES, VALUES, 2 - VALUES], axis=2)).save(path)


@pytest.mark.parametrize(("make", "text"), [
    (lambda path: None, "not found, expected a mask as PNG"),
    (lambda path: Image.fromarray(VALUES).save(path, format="JPEG"), "cannot be read as PNG"),
    (lambda path: (write_image(path), cut(path)), "cannot be read as PNG"),
    (lambda path: Image.fromarray(VALUES.astype(np.uint16)).save(path), "its pixels are I;16, expected one channel"),
    (coloured, "its pixels are RGB, expected one channel of 8 bits"),
])  # fmt: skip
def test_other_masks_are_refused(make: object, text: str, tmp_path: Path) -> None:
    make(tmp_path / "mask.png")
    with pytest.raises(ValueError if "not found" not in text else FileNotFoundError, match=text):
        read_mask(tmp_path / "mask.png")


def write_case(folder: Path, name: str, height: int = 6, width: int = 12, mask: np.ndarray | None = None) -> Case:
    """A case whose left half is red and of class 1, its right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 200, 100
    label = np.zeros((height, width), np.uint8)
    label[:, : width // 2] = 1
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    write_mask(folder / "masks" / f"{name}.png", label if mask is None else mask)
    return Case(name, folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png", folder.name)


@pytest.mark.parametrize(("fit", "rows_of_image"), [("aspect", 4), ("stretch", 8)])
def test_an_image_keeps_its_colours_and_as_the_fit_says_its_proportions(
    fit: str, rows_of_image: int, tmp_path: Path
) -> None:
    pair = read_pair(write_case(tmp_path / "site", "one"), LABELS, 8, fit)
    assert pair.pixels.shape == (3, 8, 8) and pair.pixels.dtype == torch.uint8
    assert pair.native == (6, 12) and pair.label.shape == (6, 12)
    assert int((pair.pixels.amax(dim=(0, 2)) > 0).sum()) == rows_of_image
    middle = pair.pixels[:, 4]
    assert middle[0, 1] > 190 and middle[2, 1] < 10 and middle[2, 6] > 90 and middle[0, 6] < 10


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [write_case(tmp_path / "site", f"c{n}", 6 + n, 12 - n) for n in range(5)]


def data_of(cases: list[Case], **changes: object) -> MaskData:
    return MaskData(cases, LABELS, 8, IMAGENET, **{"batch": 2, "augmentation": "none"} | changes)


def test_batches_have_three_channels_and_masks(cases: list[Case]) -> None:
    data = data_of(cases)
    assert data.slices() == 5 and data.steps() == 3
    batches = list(data.epoch(0))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    for images, labels in batches:
        assert images.shape[1:] == (3, 8, 8) and images.dtype == torch.float32
        assert labels.shape == (len(images), 8, 8) and labels.dtype == torch.int64
        # Red where the mask is, as the backbone's colours normalise it.
        red = images[:, 0] * IMAGENET[1][0] + IMAGENET[0][0]
        assert red[labels == 1].mean() > 0.6 and red[labels == 0].mean() < 0.1


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_seed_determines_an_epoch_and_batches_can_be_had_singly(cases: list[Case], augmentation: str) -> None:
    data = data_of(cases, augmentation=augmentation)
    first, again, other = (list(data.epoch(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(one[0], two[0]) for one, two in zip(first, other, strict=True))
    (images, labels), = data.epoch(3, [1])  # fmt: skip
    assert torch.equal(images, first[1][0]) and torch.equal(labels, first[1][1])


@pytest.mark.parametrize("augmentation", sorted({*AUGMENTATIONS} - {"none"}))
def test_augmentation_moves_image_and_mask_together(cases: list[Case], augmentation: str) -> None:
    data = data_of(cases, augmentation=augmentation)
    moved, agreed = 0, []
    for seed in range(12):
        for images, labels in data.epoch(seed):
            colours = images * torch.tensor(IMAGENET[1])[:, None, None] + torch.tensor(IMAGENET[0])[:, None, None]
            red = colours[:, 0] > colours[:, 2] + 0.05
            agreed.append(float((red == (labels == 1)).float().mean()))
            moved += int((labels[:, :, 4:] == 1).any())
    assert moved and np.mean(agreed) > 0.85


def test_the_cache_keeps_what_files_and_size_determine(cases: list[Case], tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        read: list[int] = []
        data = data_of(cases, cache=Cache(tmp_path / "cache"), before_read=partial(read.append, 1))
        counts.append(len(read))
    # Before the files are hashed, and the first time before they are decoded.
    assert counts == [2 * len(cases), len(cases)]
    assert torch.equal(next(iter(data.epoch(0)))[0], next(iter(data_of(cases).epoch(0)))[0])


@pytest.mark.parametrize(("change", "text"), [
    (lambda case: Case("x", case.image, None), "has no mask in the datalist"),
    (lambda case: write_case(case.image.parents[1], "x", mask=np.full((6, 12), 3, np.uint8)),
     "label values \\[3\\] are not among 0, 1, 2"),
    (lambda case: write_case(case.image.parents[1], "x", mask=np.zeros((12, 6), np.uint8)),
     "has 6 x 12 pixels, its image .* 12 x 6"),
])  # fmt: skip
def test_faulty_training_cases_are_named(cases: list[Case], change: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        data_of([*cases, change(cases[0])])


def test_check_reads_sizes_and_values(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "north"
    cases = [write_case(folder, f"c{n}") for n in range(4)]
    empty = write_case(folder, "empty", mask=np.zeros((6, 12), np.uint8))
    splits = {"training": cases[:2], "validation": [empty], "test": cases[2:]}
    write_datalist(folder, "image_masks", LABELS, splits, None, "image_segmentation")
    (site,) = read_sites(tmp_path / "data")
    assert site.task == "image_segmentation" and site.classes == 2 and site.cases("test")[0].labelled
    report = check(tmp_path / "data")
    # All five images are the same file.
    assert report.faults == [] and len(report.warnings) == 3
    assert (
        "1 of 5 cases: no foreground" in report.warnings[0] and "2 test cases show the same file" in report.warnings[1]
    )
    assert report.sites[0].share == {"disc": pytest.approx(0.4), "cup": 0.0}
    write_case(folder, "c1", mask=np.full((6, 12), 7, np.uint8))
    write_case(folder, "c2", mask=np.zeros((5, 12), np.uint8))
    cut(folder / "images" / "c3.png")
    assert [fault.split(": ", 1)[1][:40] for fault in check(tmp_path / "data").faults] == [
        "label values [7] are not among 0, 1, 2; ", "has 12 x 5 pixels, its image " + str(folder)[:11],
        "cannot be read as JPEG or PNG (Truncated",
    ]  # fmt: skip
