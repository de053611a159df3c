"""Rounds that draw blocks: the same at every site, others over rounds, and what a site that was away does."""

from math import prod

import pytest
import torch
from by_hand import by_hand

from fedpeft.algebra.average import average_payload
from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_sites
from fedpeft.models.initial import build
from fedpeft.models.payload import BLOCK, download, payload, selected_blocks, trainable, whole
from fedpeft.training.client.global_tensors import StaleSiteError
from fedpeft.training.client.trainer import SiteTrainer

RUN = make_run("sba", "images", "vit_tiny", classes=3, rounds=6, image_size=32, batch=4, blocks=2, initial="random")


def blocks_of(tensors):
    return {int(found[1]) for found in map(BLOCK.search, tensors) if found}


@pytest.mark.parametrize("method", ["sba", "sba_vpt"])
def test_a_round_declares_the_drawn_blocks_and_what_every_round_trains(method):
    run = RUN.with_(method=method, blocks=2)
    attention = {key for key in whole(run) if ".attn." in key}
    for round_ in range(run.federation.rounds):
        declared = set(payload(run, round_))
        assert blocks_of(declared & attention) == set(selected_blocks(run, round_))
        assert declared - attention == set(whole(run)) - attention
        assert download(run, round_ + 1) == payload(run, round_)
    assert download(run, 0) == payload(run, 0)


def test_every_round_draws_as_many_and_all_have_their_turn():
    selects = [selected_blocks(RUN.with_(rounds=300), round_) for round_ in range(300)]
    assert {len(set(draw)) for draw in selects} == {2}
    times = [sum(block in draw for draw in selects) for block in range(6)]
    # 300 draws of 2 of 6: 100 each, with a standard deviation of 8.
    assert all(abs(count - 100) < 40 for count in times)
    assert selects != [selected_blocks(RUN.with_(rounds=300, seed=1), round_) for round_ in range(300)]


def test_fewer_blocks_are_fewer_bytes():
    def size(blocks):
        return sum(map(prod, payload(RUN.with_(blocks=blocks)).values()))

    attention, head = 4 * 128**2 + 4 * 128, 128 * 3 + 3
    assert [size(blocks) for blocks in (1, 2, 6)] == [blocks * attention + head for blocks in (1, 2, 6)]


@pytest.fixture
def follow(small_images, tmp_path):
    """A function that lets a site take part in some rounds of a federation of one; another one averages the others."""
    site = read_sites(small_images)[0]

    def run(present, restart=()):
        leader, follower = (SiteTrainer(RUN, site, build(RUN, None), tmp_path / name) for name in ("a", "b"))
        tensors = {key: value.detach().clone() for key, value in trainable(build(RUN, None)).items()}
        answers = []
        for round_ in range(RUN.federation.rounds):
            received = {key: tensors[key] for key in download(RUN, round_)}
            if round_ in restart:
                follower = SiteTrainer(RUN, site, build(RUN, None), tmp_path / "b")
            if round_ in present:
                try:
                    follower.load(received, round_)
                    found = {key: value.detach().clone() for key, value in trainable(follower.model).items()}
                    answers.append(all(torch.equal(found[key], tensors[key]) for key in tensors))
                except StaleSiteError as error:
                    answers.append(str(error))
            update = leader.train(received, round_)
            base = {key: tensors[key] for key in update.tensors}
            tensors |= average_payload(base, [update.tensors], [1.0], RUN.method.rule_of)[0]
        return answers

    return run


def test_a_site_that_follows_knows_the_whole_model(follow):
    assert follow(range(6)) == [True] * 6


def test_so_does_one_whose_process_is_made_anew(follow):
    assert follow(range(6), restart=range(6)) == [True] * 6


def test_a_site_that_missed_a_round_declines_until_it_knows_the_model_again(follow):
    # Away in round 2, which brings what round 1 trained.
    answers = follow([0, 1, 3, 4, 5])
    assert answers[:2] == [True, True]
    missed = set(selected_blocks(RUN, 1))
    for round_, answer in zip((3, 4, 5), answers[2:], strict=True):
        known = missed - set().union(*(selected_blocks(RUN, number) for number in range(2, round_)))
        assert (answer is True) == (not known)
        assert answer is True or "did not receive what round 1 made of" in answer


def test_the_federation_trains_what_it_declares_and_nothing_else(small_images, tmp_path):
    run = RUN.with_(rounds=2)
    tensors = by_hand(run, small_images, tmp_path, ["site-1", "site-2"])
    initial = trainable(build(run, None))
    moved = {key for key in tensors if not torch.equal(tensors[key], initial[key])}
    assert moved == set(payload(run, 0)) | set(payload(run, 1))
    assert set(whole(run)) - moved
