"""Rows with a frozen encoder: which they are, and that keeping embeddings changes nothing but the time."""

import logging
from dataclasses import replace

import pytest
import torch

from fedpeft.config import methods
from fedpeft.config.methods import METHODS, Method
from fedpeft.config.run import make_run
from fedpeft.data.cache import MEMORY, Cache
from fedpeft.data.datalist import read_site
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.frozen import encoder_is_frozen
from fedpeft.models.initial import build, skeleton
from fedpeft.models.payload import trainable
from fedpeft.tasks.types import Stopped
from fedpeft.training.client.sampling import GROUPS, groups, repeated
from fedpeft.training.client.trainer import SiteTrainer
from fedpeft.training.engine.embeddings import FrozenEncoder

ROUNDS = GROUPS + 1


@pytest.fixture(scope="module")
def sites(site, small_pictures):
    """A run and a site for each task."""
    pictures = read_site(sorted(small_pictures.iterdir())[0])
    site = replace(site, splits=site.splits | {"training": site.splits["training"][:1]})
    return {
        "dec_ft": (make_run("dec_ft", "phantom", "sam_tiny", classes=2, rounds=ROUNDS, image_size=32, batch=2), site),
        "linear_probe": (
            make_run(
                "linear_probe",
                "images",
                "vit_tiny",
                classes=len(pictures.labels),
                rounds=ROUNDS,
                image_size=32,
                batch=5,
            ),
            pictures,
        ),
    }


def encodings(trainer):
    """Count the batches that the trainer's encoder computes from now on."""
    computed = []
    trainer.model.image_encoder.register_forward_pre_hook(lambda *_: computed.append(0))
    return computed


def trainer_of(run, site, state, **more):
    return SiteTrainer(run, site, build(run, shipped(run.backbone)), state, **more)


def trained(trainer, base=None, rounds=range(ROUNDS)):
    """Everything that a run's rounds lead to: losses, scores, tensors."""
    base = base or {key: p.detach().clone() for key, p in trainable(trainer.model).items()}
    record = []
    for round_ in rounds:
        scores = [(item.case, item.value, item.probabilities) for item in trainer.validate(base, round_)]
        update = trainer.train(base, round_)
        base = {key: base[key] + update.difference[key] for key in base}
        record.append((update.loss, scores))
    return record, base


def same(mine, theirs):
    return mine[0] == theirs[0] and all(torch.equal(mine[1][key], theirs[1][key]) for key in mine[1])


def test_the_rows_with_a_frozen_encoder_are_those_whose_globs_leave_it_alone():
    frozen = {
        row.name
        for row in METHODS.values()
        for task in row.tasks
        if encoder_is_frozen(
            skeleton(
                make_run(
                    row.name,
                    {"segmentation": "phantom", "classification": "images"}[task],
                    "vit_tiny" if row.name == "vpt_shallow" else "sam_tiny",
                    classes=2,
                )
            )
        )
    }
    assert frozen == {"dec_ft", "pdec_ft", "linear_probe"}


def test_a_row_is_judged_by_what_it_trains_and_adapts(monkeypatch):
    rows = (
        Method("one", "One", ("mask_decoder.iou_token.*",), "decoder alone"),
        Method("two", "Two", ("mask_decoder.*", "image_encoder.neck.*"), "and the neck"),
        Method("three", "Three", ("mask_decoder.*",), "an adapter that does not train", adapters=methods.LORA_ADAPTERS),
    )
    monkeypatch.setattr(methods, "METHODS", METHODS | {row.name: row for row in rows})
    found = [encoder_is_frozen(skeleton(make_run(row.name, "phantom", "sam_tiny", classes=2))) for row in rows]
    assert found == [True, False, False]


@pytest.mark.parametrize("name", ["dec_ft", "linear_probe"])
def test_training_is_the_same_with_and_without_room_and_in_a_second_run(sites, name, tmp_path):
    run, site = sites[name]
    memory = Cache()
    found, computed = {}, {}
    for kind, made in {
        "memory": lambda: memory,
        "none": lambda: Cache(memory=0, disk=0),
        "half": lambda: Cache(memory=_used(memory) // 2, disk=0),
        "folder": lambda: Cache(tmp_path / "cache"),
        "again": lambda: Cache(tmp_path / "cache"),
    }.items():
        trainer = trainer_of(run, site, tmp_path / kind, cache=made())
        computed[kind] = encodings(trainer)
        found[kind] = trained(trainer)
        assert same(found[kind], found["memory"])
    once = len(computed["memory"])
    assert once > GROUPS * trainer._data.steps()
    assert len(computed["none"]) > once and once <= len(computed["half"]) <= len(computed["none"])
    assert len(computed["folder"]) == once and computed["again"] == []


def _used(cache):
    return MEMORY - cache._memory


def test_encoding_is_done_by_the_end_of_the_first_round(sites, tmp_path):
    run, site = sites["dec_ft"]
    trainer = trainer_of(run, site, tmp_path)
    computed = encodings(trainer)
    trained(trainer, rounds=[0])
    after = len(computed)
    assert after >= GROUPS * trainer._data.steps()
    trained(trainer, rounds=range(1, ROUNDS))
    assert len(computed) == after


@pytest.mark.parametrize("cached", [False, True])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(sites, cached, tmp_path):
    run, site = sites["dec_ft"]

    def cache():
        return Cache(tmp_path / "cache") if cached else Cache()

    whole = trained(trainer_of(run, site, tmp_path / "whole"))
    first, base = trained(trainer_of(run, site, tmp_path / "parts", cache=cache()), rounds=range(3))
    stop = [False]
    halfway = trainer_of(run, site, tmp_path / "parts", cache=cache(), should_stop=lambda: stop[0])
    stop[0] = True
    with pytest.raises(Stopped):
        halfway.train(base, 3)
    rest = trained(trainer_of(run, site, tmp_path / "parts", cache=cache()), base, range(3, ROUNDS))
    assert same(whole, (first + rest[0], rest[1]))


def test_encoding_stops_when_asked(sites, tmp_path):
    run, site = sites["dec_ft"]
    asked = []
    trainer = trainer_of(run, site, tmp_path, should_stop=lambda: asked.append(0) or len(asked) > 4)
    computed = encodings(trainer)
    with pytest.raises(Stopped, match=site.name):
        trainer.train({key: p.detach().clone() for key, p in trainer.parameters.items()}, 0)
    assert len(computed) < 4


def test_a_short_run_is_that_of_a_row_without_groups(sites, tmp_path, monkeypatch):
    run, site = sites["dec_ft"]
    run = run.with_(rounds=GROUPS)
    grouped = trained(trainer_of(run, site, tmp_path / "one"), rounds=range(GROUPS))
    monkeypatch.setattr("fedpeft.training.client.trainer.encoder_is_frozen", lambda model: False)
    plain = trained(trainer_of(run, site, tmp_path / "two"), rounds=range(GROUPS))
    # Equal but for the last bits: outside of training, gradients and embeddings may be computed in other orders.
    assert [loss for loss, _ in grouped[0]] == pytest.approx([loss for loss, _ in plain[0]], rel=1e-4)


@pytest.mark.parametrize(
    ("rounds", "local_epochs", "expected"),
    [
        (6, 1.0, [(0, 0), (1, 0), (2, 0), (3, 0), (0, 0), (1, 0)]),
        (2, 3.0, [(0, 0), (0, 1), (0, 2), (1, 0), (0, 0), (0, 1)]),
        (3, 1.0, [(0, 0), (1, 0), (2, 0)]),
        (1, 0.5, [(0, 0)]),
        (4, 0.5, [(0, 0), (1, 0), (0, 0), (1, 0)]),
    ],
)
def test_epochs_repeat_in_turn(sites, rounds, local_epochs, expected):
    run = replace(sites["dec_ft"][0], rounds=rounds, local_epochs=local_epochs)
    a_round = len(expected) // rounds
    assert [repeated(run, divmod(number, a_round)) for number in range(len(expected))] == expected
    assert groups(run, 0) == sorted(set(expected))
    assert groups(run, rounds - 1) == sorted(set(expected[-a_round:]))


def test_repeated_batches_come_in_another_order(sites, tmp_path):
    run, site = sites["dec_ft"]
    selects = trainer_of(run.with_(rounds=20, batch=1), site, tmp_path)._sampler
    steps = selects._data.steps()

    def round_(number):
        return [images for images, _ in (pair for pair, _ in zip(selects.batches(number), range(steps), strict=False))]

    first, later = round_(0), [round_(GROUPS), round_(2 * GROUPS), round_(3 * GROUPS)]
    for batches in later:
        assert sorted(map(_bytes, batches)) == sorted(map(_bytes, first))
    assert len({tuple(map(_bytes, batches)) for batches in (first, *later)}) > 1
    assert sorted(map(_bytes, round_(1))) != sorted(map(_bytes, first))


def _bytes(images):
    return images.numpy().tobytes()


@pytest.fixture
def encoder(run, checkpoint):
    """A function that makes a frozen encoder, its weights scaled, on a cache."""

    def made(cache, scale=1.0):
        network = build(run.with_(method="pdec_ft"), checkpoint)
        with torch.no_grad():
            network.image_encoder.neck[0].weight *= scale
        return FrozenEncoder(network, cache)

    return made


def test_embeddings_are_those_of_the_network_bit_for_bit(encoder, tmp_path):
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    for cache in (Cache(), Cache(tmp_path), Cache(tmp_path), Cache(memory=0, disk=0)):
        frozen = encoder(cache)
        assert torch.equal(frozen(images), frozen.network(images))
        assert torch.equal(frozen.encode(images), frozen.network.encode(images))


def test_another_encoder_picture_or_precision_is_encoded_anew(encoder, tmp_path):
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    first = encoder(Cache(tmp_path)).encode(images)
    computed = []
    for scale, pictures, reduced in (
        (1.0, images, False),
        (1.5, images, False),
        (1.0, images + 1e-6, False),
        (1.0, images[:2], False),
        (1.0, images, True),
    ):
        frozen = encoder(Cache(tmp_path), scale)
        before = len(list(tmp_path.iterdir()))
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            found = frozen.encode(pictures)
            assert torch.equal(found, frozen.network.encode(pictures))
        computed.append(len(list(tmp_path.iterdir())) - before)
    assert computed == [0, 1, 1, 1, 1]
    assert torch.equal(encoder(Cache(tmp_path)).encode(images), first)


def test_a_damaged_embedding_is_computed_again(encoder, tmp_path, caplog):
    images = torch.randn(2, 1, 32, 32)
    first = encoder(Cache(tmp_path)).encode(images)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(encoder(Cache(tmp_path)).encode(images), first)
    assert "made again" in caplog.text


def test_embeddings_of_evaluation_serve_training(encoder):
    images = torch.randn(2, 1, 32, 32)
    frozen = encoder(Cache())
    with torch.inference_mode():
        frozen(images)
    frozen(images).mean().backward()
    assert all(p.grad is not None for path, p in frozen.named_parameters() if p.requires_grad and "iou" not in path)
    assert all(p.grad is None for p in frozen.network.image_encoder.parameters())
