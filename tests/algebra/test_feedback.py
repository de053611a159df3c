"""What rounding keeps back arrives later, from the sites and from the server."""

import pytest
import torch

from fedpeft.algebra.average import average_payload
from fedpeft.algebra.codec import CODECS, roundtrip
from fedpeft.algebra.feedback import averaged, fed_back

ROUNDS = 50


def truth() -> dict[str, torch.Tensor]:
    """Differences of which most are below half a step of int8."""
    g = torch.Generator().manual_seed(0)
    x = 1e-3 * torch.randn(40, 30, generator=g)
    x[::4, ::5] = 1.0
    return {"x": x, "b": torch.randn(7, generator=g)}


@pytest.mark.parametrize("codec", ["bfloat16", "int8"])
def test_the_mean_of_what_is_sent_comes_to_the_truth(codec: str) -> None:
    """Its error falls as one over the rounds, since nobody ever owes more than a step; alone it stays what it is."""
    pending, residual = truth(), {}
    total = {key: torch.zeros_like(x, dtype=torch.float64) for key, x in pending.items()}
    for _ in range(ROUNDS):
        sent, residual = fed_back(pending, residual, codec)
        total = {key: x + sent[key].double() for key, x in total.items()}
    limits = {key: x.abs().max() / 125 / ROUNDS for key, x in pending.items()}
    assert all(bool(((total[key] / ROUNDS - x).abs() <= limits[key]).all()) for key, x in pending.items())
    assert any(bool(((roundtrip(pending, codec)[key] - x).abs() > limits[key]).any()) for key, x in pending.items())


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_what_is_sent_and_owed_is_what_was_due_and_encoding_it_changes_nothing(codec: str) -> None:
    """And the same again gives the same."""
    _, before = fed_back(truth(), {}, codec)
    kept = {key: x.clone() for key, x in before.items()}
    sent, residual = fed_back(truth(), before, codec)
    for key, x in truth().items():
        zero = torch.zeros_like(x)
        assert torch.equal(sent[key] + residual.get(key, zero), x + kept.get(key, zero))
        assert torch.equal(roundtrip(sent, codec)[key], sent[key])
    again, _ = fed_back(truth(), before, codec)
    assert all(torch.equal(again[key], x) for key, x in sent.items())
    assert (residual == {}) == (codec == "float32")


def drifting(feedback: bool, rule: str) -> float:
    """Distance of the server's tensors from those of a federation in float32, over the way that these have gone."""
    g = torch.Generator().manual_seed(1)
    start = {"A": torch.randn(4, 160, generator=g), "B": torch.randn(130, 4, generator=g)}
    steps = [{key: 1e-3 * torch.randn(x.shape, generator=g) for key, x in start.items()} for _ in range(2)]
    exact, plain = dict(start), dict(start)
    for _ in range(ROUNDS):
        decoded = roundtrip(exact, "int8")
        exact, _ = averaged(exact, decoded, steps, [0.25, 0.75], lambda key: rule)
        if not feedback:
            exact = roundtrip(exact, "int8")
        plain, _ = average_payload(plain, steps, [0.25, 0.75], lambda key: rule)

    def seen(x: dict[str, torch.Tensor]) -> torch.Tensor:
        return x["B"] @ x["A"] if rule == "product" else torch.cat([x["A"].flatten(), x["B"].flatten()])

    return float((seen(exact) - seen(plain)).norm() / (seen(plain) - seen(start)).norm())


@pytest.mark.parametrize(("rule", "limit"), [("mean", 1e-4), ("product", 0.02)])
def test_steps_below_the_downloads_rounding_add_up_at_the_server(rule: str, limit: float) -> None:
    """A step of int8 is twenty times the sites' differences here; without feedback nothing but noise is learnt."""
    assert drifting(True, rule) <= limit
    assert drifting(False, rule) >= 10 * limit
