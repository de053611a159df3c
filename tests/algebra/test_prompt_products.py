"""DVPT: prompts that are low-rank products are averaged as products, not factor by factor."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.algebra.average import average_payload
from fedpeft.config.methods import method

RULE = method("dvpt").rule_of
A, B = ("image_encoder.blocks.3.prompts.A", "image_encoder.blocks.3.prompts.B")


def prompts(tensors):
    return tensors[B].double() @ tensors[A].double()


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(2, 12),
    dim=st.integers(4, 20),
    rank=st.integers(1, 4),
    sites=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_the_average_is_the_best_product_of_its_rank_for_the_dense_mean(count, dim, rank, sites, seed):
    rank = min(rank, count)
    g = torch.Generator().manual_seed(seed)
    base, *differences = [
        {A: torch.randn(rank, dim, generator=g), B: torch.randn(count, rank, generator=g)} for _ in range(sites + 1)
    ]
    weights = [1 / sites] * sites
    averaged, _ = average_payload(base, differences, weights, RULE)
    dense = sum(prompts({key: base[key] + item[key] for key in base}) for item in differences) / sites
    u, s, v = torch.linalg.svd(dense, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    assert {key: value.shape for key, value in averaged.items()} == {key: value.shape for key, value in base.items()}
    # Where two singular values are equal the best product is not one; how far it is from the mean always is.
    lost, least = (torch.linalg.norm(found - dense) for found in (prompts(averaged), best))
    assert lost <= least + 1e-5 * torch.linalg.norm(dense)
    if sites == 1:
        assert torch.linalg.norm(prompts(averaged) - dense) <= 1e-5 * torch.linalg.norm(dense)


def test_the_mean_of_the_factors_is_not_the_mean_of_the_prompts():
    g = torch.Generator().manual_seed(0)
    base = {A: torch.zeros(4, 20), B: torch.zeros(10, 4)}
    sites = [{A: torch.randn(4, 20, generator=g), B: torch.randn(10, 4, generator=g)} for _ in range(3)]
    averaged, reports = average_payload(base, sites, [1 / 3] * 3, RULE)
    dense = sum(map(prompts, sites)) / 3
    of_factors = {key: sum(site[key] for site in sites) / 3 for key in base}
    assert torch.linalg.norm(prompts(averaged) - dense) < 0.9 * torch.linalg.norm(prompts(of_factors) - dense)
    (report,) = reports.values()
    assert report["truncation_error"] < report["factor_mean_error"]
