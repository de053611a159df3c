"""The server's step: the papers' equations, on plain tensors by entry and on low-rank products in any basis."""

from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import Largest, draw, product, relative, truncated
from torch import Tensor

from fedpeft.algebra.average import average_payload
from fedpeft.algebra.lowrank import Factors
from fedpeft.algebra.products import Products, ProductSpace
from fedpeft.algebra.rules.registry import RULES
from fedpeft.algebra.server_optimisers.registry import OPTIMISERS, Rates
from fedpeft.algebra.server_step import moments_at_start, stepped
from fedpeft.config.strategies import AVERAGING_RULES, SERVER_OPTIMISERS

Q = "encoder.lora.q"
RATES = {
    name: Rates(0.5 * entry.learning_rate, entry.momentum or 0.0, entry.tau or 0.0)
    for name, entry in SERVER_OPTIMISERS.items()
}
STEPS = list(SERVER_OPTIMISERS)


def rule_of(path: str) -> str:
    """Return the rule of a test path."""
    return "product" if ".lora." in path else "mean"


def leaves(factors: Factors) -> dict[str, Tensor]:
    """Return the two tensors of a product under their paths."""
    return {f"{Q}.A": factors.a, f"{Q}.B": factors.b}


def read(tensors: dict[str, Tensor], prefix: str = "") -> Tensor:
    """Return the product in the tensors."""
    return product(Factors(tensors[f"{prefix}{Q}.B"], tensors[f"{prefix}{Q}.A"]).double())


class Reference:
    """The papers' equations on one dense tensor, with one second moment for all entries or one for each.

    Args:
        name: of the optimiser.
        cut: takes the velocity, and gives what is kept of it.
        whole: whether all entries share a second moment.
    """

    def __init__(self, name: str, cut=lambda x: x, whole: bool = False) -> None:
        """Start at rest."""
        self.name, self.rates, self.cut, self.whole = name, RATES[name], cut, whole
        self.velocity: Tensor | float = 0.0
        self.square: Tensor | float = RATES[name].tau ** 2

    def step(self, update: Tensor) -> Tensor:
        """Return the change of the model."""
        eta, beta, tau = self.rates.learning_rate, self.rates.momentum, self.rates.tau
        if self.name == "average":
            return eta * update
        if not tau:
            velocity = beta * self.velocity + update
            self.velocity = self.cut(velocity)
            return eta * (velocity if self.name == "momentum" else update + beta * velocity)
        squared = (update**2).mean() if self.whole else update**2
        self.square = {
            "adam": 0.99 * self.square + 0.01 * squared,
            "yogi": self.square - 0.01 * squared * torch.sign(self.square - squared),
            "adagrad": self.square + squared,
        }[self.name]
        velocity = beta * self.velocity + (1 - beta) * update
        self.velocity = self.cut(velocity)
        return eta * velocity / (torch.as_tensor(self.square).sqrt() + tau)


def test_every_optimiser_and_rule_has_an_entry_and_an_implementation() -> None:
    """A run can name what the algebra knows, and entries say of rules what their code says."""
    assert set(OPTIMISERS) == set(SERVER_OPTIMISERS)
    assert {name: rule.space is not None for name, rule in RULES.items()} == {
        name: entry.moves for name, entry in AVERAGING_RULES.items()
    }
    for name, entry in SERVER_OPTIMISERS.items():
        keeps = (["velocity"] if entry.momentum is not None else []) + (["square"] if entry.tau is not None else [])
        assert list(OPTIMISERS[name].keeps) == keeps


@pytest.mark.parametrize("name", STEPS)
def test_plain_tensors_follow_the_papers_entry_by_entry(name: str) -> None:
    """Four rounds, each with an update of another size."""
    g = torch.Generator().manual_seed(1)
    model = {"head.weight": torch.randn(3, 4, generator=g)}
    moments, reference = moments_at_start(model, rule_of, name, RATES[name]), Reference(name)
    for size in (1e-2, 1e-3, 1.0, 1e-4):
        update = size * torch.randn(3, 4, generator=g)
        average = {"head.weight": model["head.weight"] + update}
        exact = average["head.weight"].double() - model["head.weight"].double()
        expected = model["head.weight"].double() + reference.step(exact)
        model, moments, reports = stepped(model, average, moments, rule_of, name, RATES[name])
        assert torch.allclose(model["head.weight"].double(), expected, rtol=1e-5, atol=1e-6) and not reports
    assert all(tensor.dtype == torch.float32 for tensor in moments.values())


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("out", "inn", "rank"), [(20, 30, 3), (6, 40, 5), (5, 5, 5)])
def test_products_follow_the_papers_as_dense_matrices(name: str, out: int, inn: int, rank: int) -> None:
    """The dense equations with one second moment, truncated to rank r, the velocity to rank 2 r."""
    factors = draw(2, out, inn, [rank] * 5)
    model = leaves(factors[0])
    moments, kept = moments_at_start(model, rule_of, name, RATES[name]), min(2 * rank, out, inn)
    reference = Reference(name, lambda velocity: truncated(velocity, kept), whole=True)
    for average in factors[1:]:
        before = read(model)
        expected = truncated(before + reference.step(product(average) - before), rank)
        model, moments, reports = stepped(model, leaves(average), moments, rule_of, name, RATES[name])
        assert relative(read(model), expected) < 1e-5
        assert set(reports) == {Q} and 0 <= reports[Q]["truncation_error"] < 1
        assert model[f"{Q}.A"].shape == (rank, inn) and model[f"{Q}.B"].shape == (out, rank)
    if reference.name != "average":
        assert moments[f"velocity/{Q}.B"].shape == (out, kept)
        assert relative(read(moments, "velocity/"), reference.velocity) < 1e-5


def turned(factors: Factors, g: torch.Generator, digits: float) -> Factors:
    """Return the same product as B R^-1 and R A, with R of condition number 10^digits."""
    one, other = torch.linalg.qr(torch.randn(2, factors.rank, factors.rank, generator=g, dtype=torch.float64)).Q
    sizes = torch.logspace(0, -digits, factors.rank, dtype=torch.float64)
    return Factors(factors.b @ (other.mT / sizes) @ one.mT, (one * sizes) @ other @ factors.a)


@given(
    name=st.sampled_from(STEPS),
    seed=st.integers(0, 2**16),
    rank=st.integers(1, 5),
    sites=st.integers(1, 4),
    digits=st.floats(0, 3),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
)
@settings(max_examples=60, deadline=None)
def test_a_change_of_basis_of_sites_and_server_changes_nothing(
    name: str, seed: int, rank: int, sites: int, digits: float, size: float
) -> None:
    """Three rounds in two federations, of which one turns every factor; float64, so that rounding stays small."""
    g = torch.Generator().manual_seed(seed)
    start, *others = draw(seed, 9, 12, [rank] * (1 + 3 * sites))
    rates, weights = RATES[name], [1 / sites] * sites
    plain, other = leaves(start), leaves(turned(start, g, digits))
    moments = [moments_at_start(plain, rule_of, name, rates), moments_at_start(other, rule_of, name, rates)]
    for round_ in range(3):
        sent = [Factors(size * x.b, x.a) for x in others[round_ * sites : (round_ + 1) * sites]]
        received = Factors(other[f"{Q}.B"], other[f"{Q}.A"])
        other = leaves(turned(received, g, digits))
        found = []
        for state, form, turn in ((plain, moments[0], False), (other, moments[1], True)):
            trained = [leaves(turned(x, g, digits) if turn else x) for x in sent]
            updates = [{key: x[key] - state[key] for key in state} for x in trained]
            average, _ = average_payload(state, updates, weights, rule_of)
            found.append(stepped(state, average, form, rule_of, name, rates))
        (plain, moments[0], _), (other, moments[1], _) = found
        assert relative(read(other), read(plain)) < 1e-5
        if moments[0]:
            assert relative(read(moments[1], "velocity/"), read(moments[0], "velocity/")) < 1e-5
        for path, square in moments[0].items():
            if path.startswith("square/"):
                assert float(moments[1][path]) == pytest.approx(float(square), rel=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_without_an_update_nothing_moves(name: str) -> None:
    """Equal sites at rest are a fixed point, also where B is zero as before the first round."""
    (factors,) = draw(3, 8, 7, [2])
    for b in (factors.b, torch.zeros_like(factors.b)):
        model = leaves(Factors(b, factors.a)) | {"head.bias": torch.ones(3)}
        moments = moments_at_start(model, rule_of, name, RATES[name])
        after, kept, _ = stepped(model, model, moments, rule_of, name, RATES[name])
        assert torch.allclose(read(after), read(model), atol=1e-12) and torch.equal(after["head.bias"], torch.ones(3))
        assert all(not kept[path].any() for path in kept if path.endswith((".B", "bias")) and "velocity" in path)


def test_the_first_velocity_is_the_update_exactly_and_the_result_keeps_the_basis_of_the_last_round() -> None:
    """Rank 2 r is what an update may have; factors that hardly move stay close to the last ones."""
    last, noise = draw(4, 30, 20, [3, 3])
    moved = Factors(last.b + 1e-3 * noise.b, last.a)
    balanced, _ = ProductSpace().leaves(ProductSpace().model({"A": last.a, "B": last.b}), {"A": last.a, "B": last.b})
    model = {f"{Q}.{leaf}": tensor for leaf, tensor in balanced.items()}
    moments = moments_at_start(model, rule_of, "momentum", RATES["momentum"])
    after, moments, _ = stepped(model, leaves(moved), moments, rule_of, "momentum", RATES["momentum"])
    assert relative(read(moments, "velocity/"), product(moved) - read(model)) < 1e-5
    assert all(relative(after[path], model[path]) < 1e-2 for path in model)


@pytest.mark.parametrize("name", [name for name in STEPS if name != "average"])
def test_what_a_round_does_not_train_keeps_its_place_and_its_velocity(name: str) -> None:
    """Another round then goes on with the velocity as it was."""
    model = {path: torch.zeros(2) for path in ("one", "two")}
    moments = moments_at_start(model, rule_of, name, RATES[name])
    after, moved, _ = stepped(model, {path: torch.ones(2) for path in model}, moments, rule_of, name, RATES[name])
    half, kept, _ = stepped(after, {"one": torch.full((2,), 2.0)}, moved, rule_of, name, RATES[name])
    assert set(half) == {"one"} and kept.keys() == moved.keys()
    assert all(torch.equal(kept[path], moved[path]) for path in moved if path.endswith("two"))
    assert any(not torch.equal(kept[path], moved[path]) for path in moved if path.endswith("one"))


def test_products_add_merge_and_are_measured_without_the_matrix() -> None:
    """Equal terms merge, and the largest tensor is a stack of factors."""
    one, two = draw(5, 60, 50, [2, 3])
    x, y = Products({one: 1.0}), Products({two: 2.0})
    total = 3.0 * x + y + -1.0 * x
    assert total.terms == {one: 2.0, two: 2.0}
    with Largest() as largest:
        square = total.square()
    expected = (2 * product(one) + 2 * product(two)).square().mean()
    assert float(square) == pytest.approx(float(expected)) and largest.numel <= 60 * 5
    assert float((x + -1.0 * x).square()) == 0 and float((x / torch.tensor(sqrt(4.0))).terms[one]) == 0.5


def test_what_takes_no_step_or_lacks_a_moment_is_named() -> None:
    """The messages have the tensor and the remedy."""
    base, rates = {"fact.V": torch.ones(4, 2)}, RATES["momentum"]
    with pytest.raises(
        ValueError, match="fact: averaging rule 'tucker' takes no steps; use --server-optimiser average"
    ):
        moments_at_start(base, lambda path: "tucker", "momentum", rates)
    model = {"head.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match="head.bias: the server's moment 'velocity/head.bias' is missing; restore"):
        stepped(model, model, {}, rule_of, "momentum", rates)
    with pytest.raises(ValueError, match="head.bias: the server's step overflows: lower --server-learning-rate"):
        moments = moments_at_start(model, rule_of, "momentum", rates)
        stepped(model, {"head.bias": torch.full((2,), 1e38)}, moments, rule_of, "momentum", Rates(1e3, 0.5))
