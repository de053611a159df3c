"""Pieces of work on several threads: the order, the faults, and the same bits whatever the number of threads."""

import pytest
import torch
from samples import draw, drifted

from fedpeft.algebra.average import average_payload
from fedpeft.algebra.finite import all_finite
from fedpeft.common.parallel import parallel_map


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_stand_in_order_without_gradients_and_each_piece_has_one_thread(threads):
    leaf = torch.ones(1, requires_grad=True)
    found = parallel_map(lambda k: (k * leaf, torch.get_num_threads()), range(7))
    assert [(float(x), x.requires_grad, alone) for x, alone in found] == [(k, False, 1) for k in range(7)]
    assert torch.get_num_threads() == threads


def test_the_first_fault_in_order_is_raised_and_the_threads_come_back(threads):
    def work(k):
        raise ValueError(f"piece {k}")

    with pytest.raises(ValueError, match="piece 0"):
        parallel_map(work, range(4))
    assert torch.get_num_threads() == threads


def test_the_number_of_threads_changes_no_bit_of_an_average():
    # Large enough that torch and LAPACK share one matrix out among threads where they may.
    (last,) = draw(1, 300, 280, [16])
    sites = drifted(2, last, 3, 0.3)
    names = [f"block.{k}.lora.q" for k in range(4)]
    base = {f"{name}.{leaf}": x for name in names for leaf, x in (("B", last.b), ("A", last.a))}
    differences = [
        {f"{name}.{leaf}": x for name in names for leaf, x in (("B", s.b - last.b), ("A", s.a - last.a))} for s in sites
    ]
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(average_payload(base, differences, [0.5, 0.3, 0.2], lambda key: "product"))
    finally:
        torch.set_num_threads(before)
    (one, first), (two, second) = found
    assert first == second and all(torch.equal(one[key], two[key]) for key in base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_bad_value_anywhere_is_found(dtype):
    tensor = torch.randn(37, 11, generator=torch.Generator().manual_seed(3)).to(dtype)
    assert all_finite(tensor) and all_finite(torch.finfo(dtype).max * torch.ones(2, dtype=dtype))
    assert all_finite(torch.empty(0, 3, dtype=dtype))
    for value in (float("nan"), float("inf"), -float("inf")):
        for place in ((0, 0), (36, 10), (18, 5)):
            bad = tensor.clone()
            bad[place] = value
            assert not all_finite(bad)
