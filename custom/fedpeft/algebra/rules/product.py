"""The average of low-rank products: LoRA and every other adapter of that form."""

from collections.abc import Sequence
from dataclasses import asdict

from fedpeft.algebra.lowrank import Factors, average_products
from fedpeft.algebra.products import ProductSpace
from fedpeft.algebra.rules.registry import Leaves, Report, register_rule


@register_rule("product", space=ProductSpace())
def product_rule(base: Leaves, sites: Sequence[Leaves], weights: Sequence[float]) -> tuple[Leaves, Report]:
    """Average the products B A of the leaves "A" (r, in) and "B" (out, r), see `lowrank.average_products`.

    Raises:
        ValueError: if the leaves are not exactly "A" and "B", or from `average_products`.
    """
    if set(base) != {"A", "B"}:
        raise ValueError(f"a product is averaged from the leaves 'A' and 'B', got {sorted(base)}")
    factors = [Factors(site["B"], site["A"]) for site in sites]
    found, report = average_products(factors, weights, Factors(base["B"], base["A"]))
    return {"A": found.a, "B": found.b}, asdict(report)
