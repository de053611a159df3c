"""The server's round, bare: what it computes, and that whole federations are made of it."""

import pytest
import torch

from fedpeft.algebra.average import average_payload
from fedpeft.algebra.codec import roundtrip
from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_sites
from fedpeft.models.initial import build
from fedpeft.models.payload import decoded, download, payload, trainable
from fedpeft.training.client.trainer import SiteTrainer
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.selection import Best
from fedpeft.training.server.server_round import ServerRound, SiteUpdate

CASES = {"b": 1, "a": 3}


def report(cases, mean=None):
    return {"cases": cases, "loss": 0.5, "dice": {} if mean is None else {"organ": mean}}


def noise(shapes, seed, size=1e-3):
    g = torch.Generator().manual_seed(seed)
    return {key: size * torch.randn(shape, generator=g) for key, shape in shapes.items()}


@pytest.fixture
def begun(run):
    """A function that makes the server of a changed run and its first state."""

    def make(**changes):
        server = ServerRound(run.with_(**changes))
        return server, server.begin(trainable(build(server.run, None)))

    return make


@pytest.fixture
def updates(run):
    return {
        site: SiteUpdate(noise(payload(run), seed), report(cases)) for seed, (site, cases) in enumerate(CASES.items())
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"site_weighting": "cases"}, [0.75, 0.25]),
        ({"site_weighting": "uniform"}, [0.5, 0.5]),
        ({"site_weights": {"a": 0.5, "b": 2.0, "c": 1.0}}, [0.2, 0.8]),
    ],
)
def test_sites_are_weighted_and_averaged_in_the_order_of_their_names(begun, updates, fields, expected):
    server, before = begun(**fields)
    after, record = server(before, updates)
    tensors = [updates[site].tensors for site in "ab"]
    average, fits = average_payload(before.decoded, tensors, expected, server.run.method.rule_of)
    assert all(torch.equal(after.exact[key], value) for key, value in average.items())
    assert list(record["sites"]) == ["a", "b"] and record["averaging"] == fits
    assert [item["weight"] for item in record["sites"].values()] == expected
    assert {site: item["cases"] for site, item in record["sites"].items()} == CASES


def test_a_round_changes_neither_the_state_that_entered_it_nor_the_updates(begun, updates):
    server, before = begun(codec="int8")
    copies = [{key: value.clone() for key, value in before.exact.items()} for _ in range(2)]
    one, _ = server(before, updates)
    two, _ = server(before, dict(reversed(updates.items())))
    assert all(torch.equal(before.exact[key], value) for key, value in copies[0].items())
    assert all(torch.equal(one.exact[key], value) for key, value in two.exact.items())
    assert updates["a"].report == report(3)


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "int8"])
def test_the_quantisation_error_of_the_download_stays_in_the_servers_tensors(begun, codec):
    server, before = begun(codec=codec, rounds=3)
    state = before
    for seed in range(3):
        update = roundtrip(noise(payload(server.run), seed, size=1e-5), codec)
        state, _ = server(state, {"a": SiteUpdate(update, report(3))})
        sent = {key: state.decoded[key] for key in server.download(state)}
        assert all(torch.equal(value, roundtrip(sent, codec)[key]) for key, value in sent.items())
        assert all(torch.equal(value, server.download(state)[key]) for key, value in sent.items())
    means = [key for key in state.exact if server.run.method.rule_of(key) == "mean"]
    total = {
        key: sum(roundtrip(noise(payload(server.run), seed, size=1e-5), codec)[key] for seed in range(3))
        for key in means
    }
    for key in means:
        assert torch.allclose(state.exact[key] - before.exact[key], total[key], rtol=0, atol=1e-6), key


def test_a_method_that_selects_blocks_exchanges_those_of_the_round_and_keeps_the_others():
    run = make_run("sba", "images", "vit_tiny", classes=3, rounds=3, image_size=32, blocks=2, initial="random")
    server = ServerRound(run)
    state = server.begin(trainable(build(run, None)))
    for round_ in range(3):
        assert {key: tuple(value.shape) for key, value in server.download(state).items()} == download(run, round_)
        update = noise(payload(run, round_), round_)
        after, _ = server(state, {"a": SiteUpdate(update, report(1))})
        moved = {key for key, value in after.exact.items() if not torch.equal(value, state.exact[key])}
        assert moved == set(update)
        state = after


def test_scores_belong_to_the_model_that_entered_the_round(begun):
    server, state = begun(rounds=3)
    for mean in (0.4, 0.6, 0.5):
        assert not server.is_over(state)
        update = noise(payload(server.run), 0)
        state, _ = server(state, {"a": SiteUpdate(update, report(1, mean)), "b": SiteUpdate(update, report(1))})
    assert state.best == Best(1, 0.6) and server.is_over(state)
    assert server.validated(state, {"a": {"organ": 0.7}}).best == Best(3, 0.7)
    assert server.validated(state, {"a": {"organ": 0.6}}).best == Best(1, 0.6)


def test_patience_ends_a_run_with_the_round_in_which_it_is_exhausted(begun):
    server, state = begun(rounds=9, patience=2)
    done = []
    for mean in (0.5, 0.4, 0.4):
        state, _ = server(state, {"a": SiteUpdate(noise(payload(server.run), 0), report(1, mean))})
        done.append(server.is_over(state))
    assert done == [False, False, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda updates: {}, "weights"),
        (lambda updates: {"a": SiteUpdate({"x": torch.zeros(1)}, report(1))}, "x"),
        (lambda updates: {"a": updates["a"], "b": SiteUpdate({}, report(1))}, "missing from site 1"),
    ],
)
def test_what_does_not_fit_is_refused(begun, updates, change, said):
    server, state = begun()
    with pytest.raises((ValueError, KeyError), match=said):
        server(state, change(updates))


@pytest.mark.parametrize(("codec", "away"), [("float32", set()), ("int8", {("site-2", 1)})])
def test_two_sites_in_this_process_give_what_the_algebra_gives_bit_for_bit(small_phantom, run, tmp_path, codec, away):
    """The reference implementation: the same sites, and the average as one would write it out."""
    run, sites = run.with_(codec=codec), read_sites(small_phantom)[:2]
    folder = train_in_process(run, sites, None, tmp_path / "run", "federated", away=away)
    trainers = [SiteTrainer(run, site, build(run, None), tmp_path / "state") for site in sites]
    exact = {key: tensor.detach().clone() for key, tensor in trainable(build(run, None)).items()}
    for round_ in range(run.federation.rounds):
        held = decoded(run, exact, round_)
        there = [trainer for trainer in trainers if (trainer.site.name, round_) not in away]
        sent = [trainer.train({key: held[key] for key in download(run, round_)}, round_) for trainer in there]
        shares = [update.cases / sum(update.cases for update in sent) for update in sent]
        mean, _ = average_payload(held, [update.tensors for update in sent], shares, run.method.rule_of)
        exact = {key: value + (exact[key] - held[key]) for key, value in mean.items()}
    assert all(torch.equal(value, exact[key]) for key, value in folder.state().exact.items())
    assert all(
        torch.equal(value, decoded(run, exact, run.federation.rounds)[key]) for key, value in folder.tensors().items()
    )
    names = [{site.name for site in sites} - {name for name, number in away if number == round_} for round_ in range(2)]
    assert [set(record["sites"]) for record in folder.rounds()] == names
    assert folder.progress().ended and folder.description["setting"] == "federated"
