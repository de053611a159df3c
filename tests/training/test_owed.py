"""What a codec's rounding leaves a site to owe: kept beside its moments, sent with the next round, turned like them."""

from types import SimpleNamespace

import pytest
import torch

from fedpeft.algebra.codec import roundtrip
from fedpeft.common.files import read_tensors
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.training.client.trainer import SiteTrainer
from fedpeft.training.engine.optimiser import OptimiserState


@pytest.fixture(scope="module")
def played(run, site, checkpoint, tmp_path_factory):
    """Two rounds in int8, the second one twice, the second time by a trainer that was started anew."""
    here, state = run.with_(codec="int8", batch=2), tmp_path_factory.mktemp("residual")

    def trained(received, round_):
        trainer = SiteTrainer(here, site, build(here, checkpoint), state)
        update = trainer.train(received, round_)
        after = {key: p.detach().clone() for key, p in trainable(trainer.model).items()}
        kept = read_tensors(state / site.name / f"round-{round_:05d}.safetensors")
        residual = {key.removeprefix("residual/"): value for key, value in kept.items() if key.startswith("residual/")}
        return SimpleNamespace(received=received, sent=update.difference, after=after, residual=residual)

    base = roundtrip({key: p.detach() for key, p in trainable(build(here, checkpoint)).items()}, "int8")
    first = trained(base, 0)
    second = {key: base[key] + value for key, value in first.sent.items()}
    return first, trained(second, 1), trained(second, 1)


def test_what_is_sent_is_what_the_server_will_decode(played):
    for round_ in played:
        again = roundtrip(round_.sent, "int8")
        assert all(torch.equal(again[key], value) for key, value in round_.sent.items())


def test_sent_and_owed_are_what_was_trained_and_what_was_owed_before(played, run):
    first, second, _ = played
    means = [key for key in first.sent if run.method.rule_of(key) == "mean"]
    assert all(first.residual[key].any() for key in means)
    for key in means:
        pending = first.after[key] - first.received[key]
        assert torch.allclose(first.sent[key] + first.residual[key], pending, rtol=0, atol=1e-8)
        pending = second.after[key] - second.received[key] + first.residual[key]
        assert torch.allclose(second.sent[key] + second.residual[key], pending, rtol=0, atol=1e-8)


def test_a_repeated_round_sends_the_same_bit_for_bit(played):
    _, second, repeated = played
    for mine, theirs in ((second.sent, repeated.sent), (second.residual, repeated.residual)):
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_nothing_is_owed_where_nothing_is_rounded(run, site, checkpoint, tmp_path):
    here = run.with_(batch=2)
    trainer = SiteTrainer(here, site, build(here, checkpoint), tmp_path)
    trainer.train({key: p.detach().clone() for key, p in trainable(trainer.model).items()}, 0)
    assert not [key for key in read_tensors(tmp_path / site.name / "round-00000.safetensors") if "residual" in key]


def test_what_is_owed_turns_with_the_factors():
    g = torch.Generator().manual_seed(0)
    last = {"x.A": torch.randn(4, 9, generator=g), "x.B": torch.randn(7, 4, generator=g), "y": torch.randn(3)}
    residual = {key: 1e-3 * torch.randn(value.shape, generator=g) for key, value in last.items()}
    turn = torch.linalg.qr(torch.randn(4, 4, generator=g))[0]
    received = {"x.A": turn.mT @ last["x.A"], "x.B": last["x.B"] @ turn, "y": last["y"]}
    parameters = {key: torch.nn.Parameter(value) for key, value in received.items()}
    rules = {"x.A": "product", "x.B": "product", "y": "mean"}
    pending = OptimiserState({}, last, residual).pending(parameters, rules)
    assert torch.allclose(pending["x.A"], turn.mT @ residual["x.A"], atol=1e-8)
    assert torch.allclose(pending["x.B"], residual["x.B"] @ turn, atol=1e-8)
    assert torch.equal(pending["y"], residual["y"])


def test_what_is_owed_of_tensors_that_a_round_leaves_out_is_kept():
    def state(**residual):
        return OptimiserState(
            {}, {key: torch.zeros(2) for key in residual}, {k: v for k, v in residual.items() if v.any()}
        )

    before = state(a=torch.ones(2), b=torch.ones(2), c=torch.ones(2))
    after = state(a=2 * torch.ones(2), b=torch.zeros(2)).after(before)
    assert after.residual.keys() == {"a", "c"} and after.residual["a"].tolist() == [2.0, 2.0]
