"""A method, data set, codec and server optimiser from outside the package: registered, then prepared and trained."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedpeft.algebra.codecs.cast import Cast
from fedpeft.algebra.codecs.registry import CODECS as ENCODINGS
from fedpeft.algebra.codecs.registry import register_codec
from fedpeft.algebra.server_optimisers.registry import OPTIMISERS, VELOCITY, register_optimiser
from fedpeft.cli.main import main
from fedpeft.config.adapters import LoRA
from fedpeft.config.codecs import CODECS, Codec, register_codecs
from fedpeft.config.datasets import DATASETS, Dataset, register_datasets
from fedpeft.config.methods import METHODS, Adapter, Method, register_methods
from fedpeft.config.run import make_run
from fedpeft.config.strategies import SERVER_OPTIMISERS, ServerOptimiser, register_server_optimisers
from fedpeft.data.datalist import read_sites
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.sources.registry import SOURCES, Source, add_source, register_source
from fedpeft.models.payload import payload
from fedpeft.training.server.in_process import train_in_process


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """The registries are as they were after the test."""
    for registry in (METHODS, DATASETS, SOURCES, CODECS, ENCODINGS, SERVER_OPTIMISERS, OPTIMISERS):
        monkeypatch.setattr(registry, "_entries", dict(registry))


def find(args: argparse.Namespace) -> Found:
    """<site>/<class>/<image>.png; the class is the last digit of its folder."""
    cases = [
        FoundCase(path.parts[-3], path.stem, path, target=int(path.parts[-2]))
        for path in sorted(args.source.glob("*/*/*.png"))
    ]
    return Found(args.source, "outside", ("benign", "malignant"), cases)


def write_image(path: Path, number: int) -> None:
    """A small image of one colour with noise, another for each number."""
    generator = np.random.default_rng(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = generator.normal(90 + 60 * (number % 2), 20, size=(24, 24, 3)).clip(0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_what_comes_from_outside_is_prepared_and_trained(tmp_path):
    register_methods(
        Method(
            "value_lora",
            "LoRA on v alone",
            ("*.lora.*", "head.*"),
            adapters=(Adapter(LoRA(rank=2), "image_encoder.blocks.*.attn.qkv", slots=("v",), of=("q", "k", "v")),),
            tasks=("classification",),
            note="LoRA on the values of the encoder + head",
        )
    )
    register_datasets(
        Dataset("outside", "Images from outside", ((0, "benign"), (1, "malignant")), task="classification")
    )
    register_source(Source("outside", "The source holds <site>/<class>/<image>.png.", ("example",), add_options, find))
    register_codecs(Codec("outside16", "2 bytes a number"))
    register_codec("outside16", Cast(torch.float16))
    register_server_optimisers(ServerOptimiser("dampened", "a damped momentum", momentum=0.5))

    @register_optimiser("dampened", VELOCITY)
    def dampened(update, moments, rates):
        velocity = rates.momentum * moments[VELOCITY] + (1 - rates.momentum) * update
        return rates.learning_rate * velocity, {VELOCITY: velocity}

    for site in ("north", "south"):
        for number in range(8):
            write_image(
                tmp_path / "photos" / site / str(number % 2) / f"{site}-{number}.png", number + 8 * (site == "south")
            )
    command = ["data", "prepare", "outside", "--source", tmp_path / "photos", "--out", tmp_path / "data"]
    assert main([str(word) for word in command]) == 0
    sites = read_sites(tmp_path / "data")
    assert [site.dataset for site in sites] == ["outside", "outside"]

    run = make_run(
        "value_lora",
        "outside",
        "vit_tiny",
        classes=2,
        codec="outside16",
        server_optimiser="dampened",
        rounds=2,
        image_size=32,
        batch=4,
        initial="random",
    )
    assert run.data.labels == ("benign", "malignant") and run.option("rank") == 2
    adapted = [path for path in payload(run) if ".lora." in path]
    assert len(adapted) == 2 * run.backbone.depth and all(".lora.v." in path for path in adapted)

    folder = train_in_process(run, sites, None, tmp_path / "run", "federated")
    assert (folder.run, folder.description["status"], len(folder.rounds())) == (run, "finished", 2)
    trained, exact = folder.tensors(), folder.state().exact
    assert all(trained[path].any() for path in adapted if path.endswith(".B"))
    assert {f"velocity/{path}" for path in exact} == folder.state().moments.keys()
    # The sites hold what the codec makes of the server's own tensors.
    assert all(torch.equal(value, exact[path].half().float()) for path, value in trained.items())
    assert any(not torch.equal(value, exact[path]) for path, value in trained.items())


def add_options(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder of sites")


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="method 'lora' is registered already"):
        register_methods(Method("lora", "Another", ("head.*",), "another"))
    with pytest.raises(ValueError, match="codec 'int8' is registered already"):
        register_codecs(Codec("int8", "another"))
