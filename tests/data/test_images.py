"""Reading, fitting and drawing images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from photos import pixels, write_image
from PIL import Image

from fedpeft.data.datalist import Case
from fedpeft.data.images.augment import augment_image
from fedpeft.data.images.images import ImageData, fit_image, normalised, read_image, read_images

COLOURS = ((0.5, 0.4, 0.3), (0.5, 0.25, 0.2))


def saved(path: Path, mode: str) -> np.ndarray:
    image = Image.fromarray(pixels("x")).convert(mode)
    image.save(path)
    return np.moveaxis(np.array(image.convert("RGBA").convert("RGB")), 2, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_a_png_comes_as_it_is(mode: str, tmp_path: Path) -> None:
    expected = saved(tmp_path / "a.png", mode)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8 and image.shape == (3, 8, 11)
    assert (image.numpy() == expected).all()


def test_a_palette_with_transparency_has_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(pixels("x")).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes([0, 100] + [255] * 254))
    assert (read_image(tmp_path / "a.png").numpy() == np.moveaxis(np.array(image.convert("RGB")), 2, 0)).all()


def test_a_jpeg_keeps_its_axes(tmp_path: Path) -> None:
    steps = np.zeros((16, 24, 3), np.uint8)
    steps[:, 12:, 0] = 200
    Image.fromarray(steps).save(tmp_path / "a.jpg", quality=95)
    red = read_image(tmp_path / "a.jpg")[0].float()
    assert red.shape == (16, 24) and red[:, :10].max() < 40 and red[:, 14:].min() > 160


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, -8, -13])
def test_a_truncated_image_is_refused(name: str, share: float, tmp_path: Path) -> None:
    whole = write_image(tmp_path / name).read_bytes()
    cut = int(share) if share < 0 else int(share * len(whole))
    (tmp_path / name).write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=f"{name}: cannot be read as JPEG or PNG .*export it again"):
        read_image(tmp_path / name)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    np.save(tmp_path / "array.npy", pixels("x"))
    (tmp_path / "array.npy").rename(tmp_path / "array.png")
    Image.fromarray(pixels("x")).save(tmp_path / "b.bmp")
    (tmp_path / "b.bmp").rename(tmp_path / "bitmap.jpg")
    Image.fromarray(pixels("x")).convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(pixels("x")[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    flipped = bytearray(write_image(tmp_path / "flipped.png").read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    (tmp_path / "flipped.png").write_bytes(flipped)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=f"{path.name}: cannot be read"):
            read_image(path)
    with pytest.raises(FileNotFoundError, match="gone.jpg: not found"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize(("height", "width", "lines", "columns"), [
    (4, 8, slice(0, 4), slice(2, 6)), (9, 4, slice(2, 6), slice(0, 4)), (4, 4, slice(0, 4), slice(0, 4)),
])  # fmt: skip
def test_the_square_in_the_middle_is_kept(height: int, width: int, lines: slice, columns: slice) -> None:
    image = torch.from_numpy(pixels("x", height, width)).permute(2, 0, 1)
    assert torch.equal(fit_image(image, 4), image[:, lines, columns])


@pytest.mark.parametrize(("height", "width"), [(150, 200), (31, 16), (1, 5)])
def test_scaling_keeps_the_mean_and_antialiases(height: int, width: int) -> None:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, :, ::2] = 200
    fitted = fit_image(image, 8)
    assert fitted.shape == (3, 8, 8) and fitted.dtype == torch.uint8
    if height > 8:
        assert 90 < fitted.float().mean() < 110 and fitted.float().std() < 30


def test_normalising_is_the_formula() -> None:
    images = torch.from_numpy(pixels("x", 4, 4)).permute(2, 0, 1)[None]
    found = normalised(images, COLOURS)
    assert found.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip(*COLOURS, strict=True)):
        assert torch.allclose(found[0, channel], (images[0, channel] / 255 - mean) / std)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [Case(f"c{n}", write_image(tmp_path / f"{n}.png"), target=(0, 2, 2, 0, 2, 1, 2)[n]) for n in range(7)]


def sampled(data: ImageData, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = zip(*data.epoch(seed), strict=True)
    return torch.cat(images), torch.cat(targets)


def test_an_epoch_has_every_image_once(cases: list[Case]) -> None:
    data = ImageData(cases, 4, 8, COLOURS, batch=3, augment=False)
    assert data.counts.tolist() == [2, 1, 4, 0] and data.steps() == 3
    assert sorted(len(images) for images, _ in data.epoch(0)) == [2, 2, 3]
    images, targets = sampled(data, 0)
    assert images.dtype == torch.float32 and images.shape == (7, 3, 8, 8) and targets.dtype == torch.int64
    expected = normalised(read_images(cases, 8), COLOURS)
    places = [next(n for n in range(7) if torch.equal(expected[n], image)) for image in images]
    assert sorted(places) == list(range(7)) != places
    assert targets.tolist() == [cases[place].target for place in places]


def test_a_seed_determines_an_epoch(cases: list[Case]) -> None:
    first, again = (ImageData(cases, 4, 8, COLOURS, batch=batch) for batch in (3, 5))
    list(first.epoch(1))
    images, targets = sampled(first, 5)
    assert torch.equal(images, sampled(again, 5)[0]) and torch.equal(targets, sampled(again, 5)[1])
    assert not torch.equal(images, sampled(first, 6)[0])


def test_augmentation_varies_within_bounds() -> None:
    image = torch.from_numpy(pixels("x", 16, 16)).permute(2, 0, 1)
    made = [augment_image(image, np.random.default_rng(seed)) for seed in range(60)]
    assert all(item.shape == image.shape and item.dtype == torch.float32 for item in made)
    assert all(0 <= item.min() and item.max() <= 1 for item in made)
    means = torch.stack([item.mean() for item in made]) / (image.float().mean() / 255)
    assert 0.75 < means.min() < 0.9 and 1.1 < means.max() < 1.25
    assert len({item.numpy().tobytes() for item in made}) == 60
    assert torch.equal(made[3], augment_image(image, np.random.default_rng(3)))


def test_augmentation_takes_all_eight_symmetries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AREA", (1.0, 1.0)), ("BRIGHTNESS", (1.0, 1.0)), ("CONTRAST", (1.0, 1.0))):
        monkeypatch.setattr(f"fedpeft.data.images.augment.{name}", value)
    image = torch.from_numpy(pixels("x", 6, 6)).permute(2, 0, 1)
    made = {
        (augment_image(image, np.random.default_rng(seed)) * 255).round().byte().numpy().tobytes()
        for seed in range(100)
    }
    turned = [torch.rot90(part, k, (1, 2)) for part in (image, image.flip(2)) for k in range(4)]
    assert made == {item.numpy().tobytes() for item in turned} and len(made) == 8


def test_reading_can_be_ended_and_faulty_arguments_are_named(cases: list[Case]) -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        ImageData(cases, 4, 8, COLOURS, batch=2, before_read=stop)
    with pytest.raises(ValueError, match="no training case"):
        ImageData([], 4, 8, COLOURS, batch=2)
    with pytest.raises(ValueError, match="batch is 0"):
        ImageData(cases, 4, 8, COLOURS, batch=0)
    with pytest.raises(ValueError, match=r"1.png: label is 2, expected 0 to 1"):
        ImageData(cases, 2, 8, COLOURS, batch=2)
    with pytest.raises(ValueError, match="label is None"):
        ImageData([Case("one", cases[0].image)], 2, 8, COLOURS, batch=2)
