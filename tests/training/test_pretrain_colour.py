"""The shipped Vision Transformer: its generator, its recipe, its probe and its file."""

import json
from functools import partial
from math import pi
from pathlib import Path

import pytest
import torch

from fedpeft.common.files import read_tensors, sha256_of
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.run import Run, make_run
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build, skeleton
from pretrain.colour_images import HUES, TRAINED, UNSEEN, draw
from pretrain.colour_train import (
    PLACE,
    SIZES,
    Namer,
    loss,
    main,
    on_new_kinds,
    recipe,
    score,
)
from pretrain.descent import descend, write
from pretrain.places import STEEPNESS, places
from pretrain.probe import probe

ENTRY = BACKBONES["vit_tiny"]
TASK = make_run("lora", "images", backbone="vit_tiny", classes=3)


def labels_of(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with the labels of a training step."""
    image, label, inside = draw(count, 0)
    return image, torch.cat([label, places(image, label, inside, 8).flatten(1)], dim=1)


class TestColourImages:
    def test_one_seed_gives_one_batch(self) -> None:
        assert all(map(torch.equal, draw(4, 7), draw(4, 7)))

    def test_seeds_differ(self) -> None:
        assert not torch.equal(draw(4, 7)[0], draw(4, 8)[0])

    @pytest.mark.parametrize(("count", "image_size"), [(1, 64), (3, 32)])
    def test_shapes_and_ranges(self, count: int, image_size: int) -> None:
        image, label, inside = draw(count, 0, image_size)
        assert image.shape == (count, 3, image_size, image_size) and image.dtype == torch.float32
        assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1
        assert label.shape == (count, len(TRAINED.attributes)) and label.dtype == torch.int64
        assert inside.shape == (count, image_size, image_size) and inside.dtype == torch.bool

    @pytest.mark.parametrize("kinds", [TRAINED, UNSEEN])
    def test_every_value_occurs(self, kinds) -> None:
        label = draw(128, 1, kinds=kinds)[1]
        for column, (name, values) in enumerate(kinds.attributes.items()):
            assert label[:, column].unique().tolist() == list(range(len(values))), name

    def test_pretraining_never_shows_what_is_unseen(self) -> None:
        assert not set(TRAINED.figures) & set(UNSEEN.figures)
        assert not set(TRAINED.textures) & set(UNSEEN.textures)

    def test_the_hue_of_the_ground_is_the_one_that_is_named(self) -> None:
        image, label, inside = draw(200, 2)
        colour = image.where(~inside.unsqueeze(1), 0).sum(dim=(2, 3))
        # The ground's strongest or weakest colour is the hue's own or its complement.
        hue = label[:, list(TRAINED.attributes).index("hue of the ground")]
        pure = hue % 2 == 0
        channel = torch.where(pure, hue // 2, ((hue + 3) % 6) // 2)
        found = torch.where(pure, colour.argmax(dim=1), colour.argmin(dim=1))
        assert len(HUES) == 6 and (found == channel).float().mean() > 0.9

    def test_figures_differ_from_their_ground(self) -> None:
        image, _, inside = draw(100, 3)
        inside = inside.unsqueeze(1)
        means = [(image * part).sum(dim=(2, 3)) / part.sum(dim=(2, 3)) for part in (inside, ~inside)]
        assert (means[0] - means[1]).abs().amax(dim=1).median() > 0.1

    def test_a_stronger_contrast_varies_more(self) -> None:
        image, label, inside = draw(200, 4)
        contrast = label[:, list(TRAINED.attributes).index("contrast of the ground")]
        corners = image[:, :, :24, :24].std(dim=(2, 3)).mean(dim=1)
        faint, clear, strong = (corners[contrast == index].median() for index in range(3))
        assert faint < clear < strong


class TestPlaces:
    def test_have_the_attributes_of_the_surface_that_they_show(self) -> None:
        inside = torch.zeros(1, 16, 16, dtype=torch.bool)
        inside[0, :8, 8:] = True
        found = places(torch.rand(1, 3, 16, 16), torch.arange(len(SIZES))[None], inside, 8)[0, :, :5].tolist()
        ground, figure = [6, 7, 8, 9, 0], [2, 3, 4, 5, 1]
        assert found == [ground, figure, ground, ground]

    @pytest.mark.parametrize("index", range(8))
    def test_have_the_direction_of_their_edges(self, index: int) -> None:
        angle = torch.tensor((index + 0.5) / 8 * pi)
        line = torch.arange(24.0)
        along = line * angle.cos() + line[:, None] * angle.sin()
        image = (0.5 + 0.3 * torch.sin(along)).expand(1, 3, 24, 24)
        found = places(image, torch.zeros(1, len(SIZES), dtype=torch.int64), torch.zeros(1, 24, 24), 8)[0]
        assert found[4, 5:].tolist() == [index, list(STEEPNESS).index("sharp")]

    def test_plain_ones_are_flat(self) -> None:
        found = places(
            torch.full((1, 3, 8, 8), 0.3), torch.zeros(1, len(SIZES), dtype=torch.int64), torch.zeros(1, 8, 8), 8
        )
        assert found[0, 0, -1] == list(STEEPNESS).index("flat")


class TestTraining:
    def test_the_loss_is_the_mean_over_attributes(self) -> None:
        label = labels_of(5)[1]
        logits = torch.zeros(5, 65, recipe().data.classes)
        uniform = sum(torch.tensor(sizes).log().mean() for sizes in (SIZES, PLACE))
        assert torch.isclose(loss(logits, label), uniform)
        # Certain of everything: the class token of the image, the others of their places.
        for place in range(65):
            first, sizes = (0, SIZES) if place == 0 else (sum(SIZES), PLACE)
            column = 0 if place == 0 else len(SIZES) + (place - 1) * len(PLACE)
            values = label[:, column : column + len(sizes)]
            for size, value in zip(sizes, values.unbind(1), strict=True):
                logits[torch.arange(5), place, first + value] = 50.0
                first += size
        assert loss(logits, label) < 1e-6

    def test_a_few_steps_learn_a_few_images(self) -> None:
        run = recipe()
        batch = labels_of(8)
        losses = descend(Namer(build(run, None)), run, loss, lambda step: batch, 25, lambda done, value: None)
        assert losses[-1] < 0.8 * losses[0]

    def test_the_command_writes_what_a_task_takes_over(self, tmp_path: Path, monkeypatch) -> None:
        tiny = "pretrain.colour_train."
        monkeypatch.setattr(tiny + "recipe", lambda *given: recipe(*given).with_(batch=4))
        monkeypatch.setattr(tiny + "score", partial(score, count=16))
        monkeypatch.setattr(tiny + "on_new_kinds", partial(on_new_kinds, count=32))
        files = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
        for file in files:
            main(["--out", str(file), "--steps", "2"])
        facts = json.loads(files[0].with_suffix(".json").read_text())
        assert facts["sha256"] == sha256_of(files[0]) == sha256_of(files[1]) and facts["images"] == 8
        assert set(facts["score"]) == {"mean", *TRAINED.attributes} and set(facts["probe"]) == {"pretrained", "random"}
        model = build(TASK, files[0])
        tensors = read_tensors(files[0])
        assert all(torch.equal(model.state_dict()[path], tensor) for path, tensor in tensors.items())

    @pytest.mark.parametrize("arguments", [["--steps", "0", "--out", "a.safetensors"], ["--out", "a.pth"]])
    def test_wrong_arguments_are_refused(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(arguments)
        assert "expected" in capsys.readouterr().err


class TestProbe:
    def test_what_is_linear_is_found_and_what_is_not_there_is_not(self) -> None:
        generator = torch.Generator().manual_seed(0)
        features, classes = torch.randn(600, 8, generator=generator), torch.arange(600) % 3
        told = features + 6 * torch.nn.functional.one_hot(classes, 8)
        for inputs, low, high in ((told, 0.98, 1.0), (features, 0.2, 0.45)):
            assert low <= probe((inputs[:300], classes[:300]), (inputs[300:], classes[300:])) <= high

    def test_a_rare_class_weighs_as_much_as_a_frequent_one(self) -> None:
        # One feature, two overlapping classes, 95 to 5: the border lies in the middle all the same.
        generator = torch.Generator().manual_seed(0)
        classes = (torch.arange(2000) % 20 == 0).long()
        features = torch.randn(2000, 1, generator=generator) + 2 * classes[:, None]
        assert probe((features, classes), (features, classes)) > 0.8


class TestShippedFile:
    def test_is_described(self) -> None:
        file = shipped(ENTRY)
        facts = json.loads(file.with_suffix(".json").read_text())
        assert facts["sha256"] == sha256_of(file) and facts["bytes"] == file.stat().st_size <= 6_000_000
        assert Run.from_dict(facts["recipe"]) == recipe(facts["seed"])
        assert set(facts["score"]) == {"mean", *TRAINED.attributes}

    def test_fits_every_task(self) -> None:
        tensors = read_tensors(shipped(ENTRY))
        wanted = {key for key in skeleton(TASK).state_dict() if not key.startswith(ENTRY.fresh) and ".lora." not in key}
        assert tensors.keys() == wanted
        assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in tensors.values())

    def test_its_features_tell_new_kinds_apart_better_than_random_ones(self) -> None:
        run = recipe()
        pretrained, random = (build(run, start).eval() for start in (shipped(ENTRY), None))
        assert on_new_kinds(pretrained.features, run, 192) > on_new_kinds(random.features, run, 192) + 0.05

    def test_write_leaves_the_head_out(self, tmp_path: Path) -> None:
        write(tmp_path / "a.safetensors", build(recipe(), None), recipe(), {})
        assert all(key.startswith("image_encoder.") for key in read_tensors(tmp_path / "a.safetensors"))
