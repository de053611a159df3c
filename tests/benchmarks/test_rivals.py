"""The rivals of our average do what their definitions say."""

import pytest
import torch
from bench_rivals import (
    SHAPES,
    SITES,
    TITLES,
    WAYS,
    WEIGHTS,
    accuracy,
    best,
    by_pair,
    dense,
    dense_full,
    dense_randomised,
    hlora,
    make_pairs,
    ours,
)

from fedpeft.algebra.lowrank import Factors, average_products


def pair(shape, ranks=(3,) * SITES, seed=0):
    g = torch.Generator().manual_seed(seed)

    def factors(rank):
        return Factors(torch.randn(shape[0], rank, generator=g), torch.randn(rank, shape[1], generator=g))

    return [factors(rank) for rank in ranks], factors(3)


@pytest.mark.parametrize("way", [hlora, dense_full])
@pytest.mark.parametrize("shape", [(40, 30), (20, 50)])
@pytest.mark.parametrize("ranks", [(3,) * SITES, (1, 2, 3, 4, 5, 6)])
def test_the_exact_ways_give_the_best_product(way, shape, ranks):
    sites, last = pair(shape, ranks)
    found, wanted = way(sites, WEIGHTS, last.rank).double(), best(sites, last.rank)
    assert found.shape == shape and found.rank == 3
    assert (found.b @ found.a - wanted).norm() < 1e-5 * wanted.norm()


def test_ours_gives_the_best_product_of_what_the_sites_trained():
    pairs = [pair((40, 30)), pair((20, 50), seed=1)]
    for found, (sites, last) in zip(ours(pairs)(), pairs, strict=True):
        exact, _ = average_products(sites, WEIGHTS, last)
        torch.testing.assert_close(found.b @ found.a, exact.b @ exact.a)
        assert (found.b.double() @ found.a.double() - best(sites, 3)).norm() < 1e-5 * best(sites, 3).norm()


@pytest.mark.parametrize("shape", [(80, 60), (40, 100)])
def test_the_randomised_way_is_near_where_the_spectrum_falls(shape):
    one, last = pair(shape, ranks=(3,))
    sites = one * SITES
    found = dense_randomised(sites, WEIGHTS, last.rank).double()
    wanted = dense([site.double() for site in sites], WEIGHTS)
    assert found.shape == shape and found.rank == 3
    assert (found.b @ found.a - wanted).norm() < 1e-5 * wanted.norm()


def test_hlora_and_the_randomised_way_put_all_singular_values_into_a():
    sites, last = pair((40, 30))
    for way in (hlora, dense_randomised):
        found = way(sites, WEIGHTS, last.rank)
        torch.testing.assert_close(found.b.mT @ found.b, torch.eye(3), atol=1e-5, rtol=0)
    balanced = dense_full(sites, WEIGHTS, last.rank)
    torch.testing.assert_close(balanced.b.norm(), balanced.a.norm())


def test_hlora_fills_up_where_the_average_has_a_lower_rank():
    one, _ = pair((40, 30), ranks=(2,))
    found = hlora(one, [1.0], 5)
    assert (found.b.shape, found.a.shape) == ((40, 5), (5, 30))
    torch.testing.assert_close(found.b @ found.a, one[0].b @ one[0].a)
    assert not found.a[2:].any()


def test_the_pairs_are_those_of_vit_b():
    pairs = make_pairs(False)
    assert len(pairs) == 38 and {last.shape for _, last in pairs} == set(SHAPES)
    assert all(len(sites) == SITES and {site.rank for site in sites} == {32} for sites, _ in pairs)
    (sites, last), independent = pairs[0], make_pairs(True)[0][0]
    gap = (sites[0].b - last.b).norm() / last.b.norm()
    assert 0.25 < gap < 0.35 and not torch.equal(independent[0].b, independent[1].b)
    assert sum(WEIGHTS) == pytest.approx(1) and WAYS.keys() == TITLES.keys()


def test_accuracy_is_measured_for_every_way():
    # The smallest shape alone.
    found = accuracy(make_pairs(True, 1)[-1:])
    assert found.keys() == WAYS.keys()
    assert all(0 < entry["distance_max"] < 0.1 and entry["ratio_min"] > 0 for entry in found.values())
    assert found["ours"]["ratio_min"] == pytest.approx(1, abs=1e-4)
    assert found["ours"]["distance_max"] < found["hlora"]["distance_max"] < 1e-4
    assert by_pair(hlora)([])() == []
