"""Pretraining on one site's images without labels: its views, its loss, and what it reads."""

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedpeft.common.files import read_tensors, sha256_of
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.run import make_run
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.prepare.writer import write_folder
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from pretrain.self_supervised import TEMPERATURE, agreement, main, pretrain, recipe
from pretrain.views import view

SPLITS = ("training",) * 4 + ("validation", "test")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[FoundCase]:
    """Two sites of four training images, one for validation and one for the test."""
    source, generator = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    found = []
    for site in ("a", "b"):
        for index, split in enumerate(SPLITS):
            file = source / f"{site}{index}.png"
            Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(file)
            found.append(FoundCase(site, file.stem, file, target=index % 2, split=split, group=f"lesion-{file.stem}"))
    return found


@pytest.fixture(scope="module")
def data(images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "sites"
    write_folder(Found(out, "images", ["x", "y"], images), out)
    return out


def pretrained(data: Path, out: Path, *more: str) -> dict:
    main(["--data", str(data), "--site", "a", "--out", str(out), "--steps", "2", *more])
    return json.loads(out.with_suffix(".json").read_text())


class TestViews:
    def test_one_seed_gives_one_view(self) -> None:
        images = torch.rand(4, 3, 32, 32)
        assert torch.equal(view(images, 1), view(images, 1))
        assert not torch.equal(view(images, 1), view(images, 2))

    def test_shape_and_range(self) -> None:
        found = view(torch.rand(3, 3, 16, 16), 0)
        assert found.shape == (3, 3, 16, 16) and found.min() >= 0 and found.max() <= 1 and found.isfinite().all()

    def test_colours_stay_nearly_what_they_were(self) -> None:
        # A plain image has no outline to turn: what a view changes in it is light, tint and saturation.
        plain = torch.tensor([0.5, 0.3, 0.2])[None, :, None, None].expand(64, 3, 16, 16)
        found = view(plain, 0).mean(dim=(2, 3))
        assert (found.argmax(dim=1) == 0).all() and (found.argmin(dim=1) == 2).all()
        assert found.std(dim=0).min() > 0.02


class TestAgreement:
    def test_is_equation_1_of_chen_et_al(self) -> None:
        # Two images, two views each, in the order first views, second views; likeness by hand.
        projected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
        near, far = exp(1 / TEMPERATURE), exp(0.0)
        found = agreement(projected, torch.tensor([2, 3, 0, 1]))
        assert found.item() == pytest.approx(-log(near / (near + 2 * far)), rel=1e-5)

    def test_wrong_partners_cost_more(self) -> None:
        projected = torch.eye(4).repeat(2, 1)
        right, wrong = torch.arange(8).roll(4), torch.arange(8).roll(3)
        assert agreement(projected, right) < agreement(projected, wrong) - 1

    def test_a_few_steps_bring_views_together(self) -> None:
        # Six colours, which no view changes into another.
        colours = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60], [60, 200, 200], [90] * 3])
        pixels = colours[:, :, None, None].expand(6, 3, 64, 64).to(torch.uint8)
        _, losses = pretrain(recipe(), pixels, 15, lambda done, loss: None)
        assert losses[-1] < 0.7 * losses[0]


class TestCommand:
    def test_names_what_it_has_seen_and_nothing_else_was_read(self, data: Path, tmp_path: Path) -> None:
        facts = pretrained(data, tmp_path / "m.safetensors")
        assert facts["site"] == "a" and facts["start"] == "random" and facts["start_sha256"] is None
        assert facts["cases"] == [{"case": f"a{index}", "group": f"lesion-a{index}"} for index in range(4)]
        assert facts["sha256"] == sha256_of(tmp_path / "m.safetensors")

    def test_other_sites_other_splits_and_labels_do_not_matter(self, images, data: Path, tmp_path: Path) -> None:
        changed = [
            replace(item, target=1 - item.target)
            if item.site == "a" and item.split == "training"
            else replace(item, image=images[0].image)
            for item in images
        ]
        write_folder(Found(data, "images", ["x", "y"], changed), tmp_path / "other")
        first, second = (pretrained(folder, tmp_path / "m.safetensors") for folder in (data, tmp_path / "other"))
        assert first["sha256"] == second["sha256"]

    def test_a_run_with_medical_initial_weights_starts_from_it(self, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "m.safetensors"
        pretrained(data, out)
        model = build(make_run("lora", "images", backbone="vit_tiny", classes=3, initial="medical"), out)
        tensors = read_tensors(out)
        assert tensors and all(key.startswith("image_encoder.") for key in tensors)
        assert all(torch.equal(model.state_dict()[path], tensor) for path, tensor in tensors.items())

    def test_goes_on_from_the_shipped_weights(self, data: Path, tmp_path: Path) -> None:
        out, start = tmp_path / "m.safetensors", shipped(BACKBONES["vit_tiny"])
        facts = pretrained(data, out, "--start", "generic")
        assert facts["start_sha256"] == sha256_of(start)
        before, after = read_tensors(start), read_tensors(out)
        assert all((after[key] - before[key]).abs().max() < 0.01 for key in before)
        assert any(not torch.equal(after[key], before[key]) for key in before)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--site", "c"], ["c", "a, b"]),
            (["--site", "a", "--data", "nowhere"], ["nowhere"]),
            (["--site", "a", "--out", "m.pth"], ["m.pth", ".safetensors"]),
            (["--site", "a", "--steps", "0"], ["--steps 0", "1 or more"]),
            (["--site", "a", "--backbone", "vit_b16", "--start", "generic"], ["vit_b16", "--start random"]),
        ],
    )
    def test_says_what_is_wrong(self, data: Path, capsys, arguments: list[str], words: list[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--data", str(data), "--out", "m.safetensors", *arguments])
        said = capsys.readouterr().err
        assert all(word in said for word in words), said

    def test_volumes_are_refused(self, small_phantom: Path, capsys) -> None:
        with pytest.raises(SystemExit):
            main(["--data", str(small_phantom), "--site", "site-1", "--out", "m.safetensors"])
        assert "segmentation" in capsys.readouterr().err
