"""Rules, groups and keys: what `average_payload` does with the tensors that arrive."""

import json

import pytest
import torch
from torch import Tensor

from fedpeft.algebra.average import average_payload, normalised
from fedpeft.algebra.lowrank import Factors, average_products
from fedpeft.algebra.rules.mean import weighted_mean
from fedpeft.algebra.rules.registry import RULES, Leaves, Report, register_rule

Q = "image_encoder.blocks.0.attn.qkv.lora.q"
V = "image_encoder.blocks.0.attn.qkv.lora.v"
SHAPES = {f"{Q}.A": (4, 30), f"{Q}.B": (20, 4), f"{V}.B": (8, 4), f"{V}.A": (4, 8), "head.bias": (3,)}

# Rule -> the leaves beside V (20, 4) and U (4, 30), for six slots.
FACT = {"tensor_train": {"S": (6, 4, 4)}, "tucker": {"C": (4, 4, 3), "P": (3, 6)}}


def payload(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Return float32 tensors under all keys."""
    g = torch.Generator().manual_seed(seed)
    return {key: scale * torch.randn(shape, generator=g) for key, shape in SHAPES.items()}


def rule_of(key: str) -> str:
    """Return the rule of a test key."""
    return "product" if ".lora." in key else "mean"


def test_groups_are_averaged_by_their_rule_from_base_and_difference() -> None:
    """Products are made of base + difference, and reports are JSON."""
    base, differences, weights = payload(0), [payload(k, 0.3) for k in (1, 2, 3)], [0.5, 0.3, 0.2]
    averaged, reports = average_payload(base, differences, weights, rule_of)
    assert list(averaged) == list(base) and all(averaged[k].dtype == torch.float32 for k in base)
    assert {k: tuple(x.shape) for k, x in averaged.items()} == SHAPES
    for group in (Q, V):
        sites = [
            Factors(base[f"{group}.B"].double() + d[f"{group}.B"], base[f"{group}.A"].double() + d[f"{group}.A"])
            for d in differences
        ]
        expected, report = average_products(sites, weights, Factors(base[f"{group}.B"], base[f"{group}.A"]))
        assert torch.equal(averaged[f"{group}.A"], expected.a) and torch.equal(averaged[f"{group}.B"], expected.b)
        assert reports[group]["truncation_error"] == report.truncation_error > 0
    mean = base["head.bias"] + sum(w * d["head.bias"] for d, w in zip(differences, weights, strict=True))
    assert torch.allclose(averaged["head.bias"], mean, atol=1e-6)
    assert set(reports) == {Q, V} and json.loads(json.dumps(reports)) == reports


@pytest.mark.parametrize(("rule", "core"), FACT.items())
def test_shared_bases_are_averaged_by_their_rule(rule: str, core: dict[str, tuple[int, ...]]) -> None:
    """FacT's tensors are one group, whatever their order; the report is true of the dense updates, and JSON."""
    shapes = {"fact.U": (4, 30), "head.bias": (3,)} | {f"fact.{x}": shape for x, shape in core.items()}
    shapes["fact.V"] = (20, 4)
    g = torch.Generator().manual_seed(3)
    base, *differences = [{key: torch.randn(shape, generator=g) for key, shape in shapes.items()} for _ in range(4)]

    def updates(tensors: dict[str, Tensor]) -> Tensor:
        x = {key.removeprefix("fact."): tensor.double() for key, tensor in tensors.items()}
        slots = x["S"] if rule == "tensor_train" else torch.einsum("ijk,kl->lij", x["C"], x["P"])
        return torch.einsum("oi,lij,jn->lon", x["V"], slots, x["U"])

    weights = [0.5, 0.3, 0.2]
    averaged, reports = average_payload(base, differences, weights, lambda k: rule if k.startswith("fact") else "mean")
    assert {key: tuple(x.shape) for key, x in averaged.items()} == shapes and list(averaged) == list(shapes)
    assert all(x.dtype == torch.float32 and x.is_contiguous() for x in averaged.values())
    sites = [{key: base[key].double() + d[key].double() for key in base} for d in differences]
    exact = sum(w * updates(site) for site, w in zip(sites, weights, strict=True))
    mean = updates({key: weighted_mean([site[key] for site in sites], weights) for key in base})
    (report,) = (reports.pop("fact"),)
    assert not reports and json.loads(json.dumps(report)) == report
    error = float((updates(averaged) - exact).norm() / exact.norm())
    assert report["truncation_error"] == pytest.approx(error, abs=1e-6) and 0 < error < report["factor_mean_error"]
    assert report["factor_mean_error"] == pytest.approx(float((mean - exact).norm() / exact.norm()), abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("tensor_train", {"U": (5, 30)}),
        ("tensor_train", {"S": (6, 4)}),
        ("tensor_train", {"extra": (1,)}),
        ("tucker", {"P": (5, 6)}),
        ("tucker", {"C": (4, 5, 3)}),
    ],
)
def test_shared_bases_that_do_not_fit_are_refused(rule: str, change: dict[str, tuple[int, ...]]) -> None:
    """The message has the leaves and dimensions expected, and the shapes got."""
    shapes = {"V": (20, 4), "U": (4, 30)} | FACT[rule] | change
    base = {f"fact.{leaf}": torch.ones(shape) for leaf, shape in shapes.items()}
    with pytest.raises(ValueError, match=r"fact: an adapter with the leaves V \(out, r\), .*U \(r, in\) expected"):
        average_payload(base, [base], [1.0], lambda key: rule)


def test_zero_differences_return_the_products_and_means_of_the_base() -> None:
    """A round in which nobody learned changes no product and no mean."""
    base = payload(0)
    averaged, _ = average_payload(base, [{k: 0 * x for k, x in base.items()}] * 3, [0.2, 0.3, 0.5], rule_of)
    assert torch.equal(averaged["head.bias"], base["head.bias"])
    for group in (Q, V):
        before = base[f"{group}.B"] @ base[f"{group}.A"]
        assert torch.allclose(averaged[f"{group}.B"] @ averaged[f"{group}.A"], before, atol=1e-5)


def test_a_weight_of_zero_leaves_a_site_out() -> None:
    """A site with weight 0 has no influence, however large its tensors."""
    base, one, other = payload(0), payload(1), payload(2, 100.0)
    alone, _ = average_payload(base, [one], [1.0], rule_of)
    both, _ = average_payload(base, [one, other], [1.0, 0.0], rule_of)
    assert torch.equal(both["head.bias"], alone["head.bias"])
    assert torch.allclose(both[f"{Q}.B"] @ both[f"{Q}.A"], alone[f"{Q}.B"] @ alone[f"{Q}.A"], atol=1e-4)


def test_a_new_rule_is_registered_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule brings its own grouping and function; nothing else changes, and no other rule is replaced."""
    monkeypatch.setattr(RULES, "_entries", dict(RULES))

    @register_rule("newest", split=lambda key: ("everything", key))
    def newest(base: Leaves, sites: list[Leaves], weights: list[float]) -> tuple[Leaves, Report]:
        return {leaf: sites[-1][leaf].to(base[leaf].dtype) for leaf in base}, {"leaves": len(base)}

    base, difference = payload(0), payload(1)
    averaged, reports = average_payload(base, [payload(2), difference], [0.5, 0.5], lambda key: "newest")
    assert reports == {"everything": {"leaves": len(SHAPES)}}
    assert all(torch.allclose(averaged[key], base[key] + difference[key]) for key in base)
    with pytest.raises(ValueError, match="averaging rule 'mean' is registered already; give the new one another name"):
        register_rule("mean")(newest)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({f"{Q}.B": None}, rf"{Q}\.B: missing from site 1"),
        ({"extra.weight": torch.zeros(1), "z": torch.zeros(1)}, "extra.weight: not expected from site 1"),
        ({f"{V}.A": torch.zeros(4, 9)}, r"lora\.v\.A: site 1 sent \(4, 9\), expected \(4, 8\)"),
        ({"head.bias": torch.tensor([0.0, float("nan"), 0.0])}, "head.bias: site 1 sent NaN"),
    ],
)
def test_faults_name_the_key_and_the_site(fault: dict[str, Tensor | None], message: str) -> None:
    """The first faulty key is in the message."""
    faulty = {k: x for k, x in (payload(2) | fault).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        average_payload(payload(0), [payload(1), faulty], [0.5, 0.5], rule_of)


def test_rules_that_do_not_fit_are_refused() -> None:
    """Unknown rules, broken groups, integers and weights are told apart."""
    base, differences = payload(0), [payload(1)]
    with pytest.raises(ValueError, match=r"q\.A: unknown averaging rule 'median', known are \['mean', 'product',"):
        average_payload(base, differences, [1.0], lambda key: "median")
    with pytest.raises(ValueError, match=r"lora\.q: a product is averaged from the leaves 'A' and 'B', got \['A'\]"):
        average_payload(base, differences, [1.0], lambda key: "product" if key.endswith("A") else "mean")
    with pytest.raises(ValueError, match="n: the base must be floating point"):
        average_payload({"n": torch.tensor(3)}, [{"n": torch.tensor(1)}], [1.0], lambda key: "mean")
    with pytest.raises(ValueError, match="weight"):
        average_payload(base, differences, [0.5], rule_of)


def test_weighted_mean_is_summed_in_float64_in_the_given_order() -> None:
    """float32 would cancel to 0; the order fixes every bit."""
    tensors = [torch.tensor([x]) for x in (1e8, 1.0, -1e8)]
    assert torch.equal(weighted_mean(tensors, [0.25, 0.5, 0.25]), torch.tensor([0.5]))
    g = torch.Generator().manual_seed(1)
    many = [torch.randn(100, generator=g, dtype=torch.float64) for _ in range(7)]
    weights = normalised([1, 2, 3, 4, 5, 6, 7])
    expected = torch.zeros(100, dtype=torch.float64)
    for x, w in zip(many, weights, strict=True):
        expected = expected + w * x
    assert torch.equal(weighted_mean(many, weights), expected)
    assert weighted_mean([x.bfloat16() for x in many], weights).dtype == torch.bfloat16


def test_weighted_mean_refuses_what_does_not_fit() -> None:
    """Shapes and the number of weights are checked."""
    with pytest.raises(ValueError, match=r"\(2,\) expected, got \(1,\)"):
        weighted_mean([torch.zeros(2), torch.zeros(1)], [0.5, 0.5])
    with pytest.raises(ValueError, match="one weight for each"):
        weighted_mean([torch.zeros(2)], [0.5, 0.5])


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1, 2], [float("nan")], [float("inf"), 1]])
def test_normalised_refuses(weights: list[float]) -> None:
    """Weights without a sum to divide by are refused."""
    with pytest.raises(ValueError, match="not all zero"):
        normalised(weights)


def test_normalised_sums_to_one() -> None:
    """Case counts become shares."""
    assert normalised([30, 10, 0]) == [0.75, 0.25, 0.0]
