"""One batch ahead, in order; faults where they belong, and an end that ends."""

import threading

import pytest
import torch

from fedpeft.training.engine.prefetch import prefetch


def batches(count, made, fault_at=None):
    for number in range(count):
        if number == fault_at:
            raise ValueError(f"batch {number} is faulty")
        made.append((number, threading.current_thread()))
        yield torch.tensor(number), torch.tensor(-number)


def test_the_same_batches_in_the_same_order_from_another_thread():
    made = []
    found = [(int(images), int(labels)) for images, labels in prefetch(batches(20, made))]
    assert found == [(number, -number) for number in range(20)]
    assert {thread for _, thread in made}.isdisjoint({threading.current_thread()})
    assert len({thread for _, thread in made}) == 1


def test_nothing_comes_of_nothing():
    assert list(prefetch(batches(0, []))) == []


def test_a_fault_is_raised_where_its_batch_would_have_come():
    found = []
    with pytest.raises(ValueError, match="batch 3 is faulty"):
        for images, _ in prefetch(batches(9, [], fault_at=3)):
            found.append(int(images))
    assert found == [0, 1, 2]


def test_closing_it_ends_the_thread_one_batch_ahead_at_most():
    made = []
    stream = prefetch(batches(1000, made))
    next(stream)
    next(stream)
    stream.close()
    assert len(made) <= 3
    assert not any(thread.is_alive() for _, thread in made)


def test_preparing_takes_one_thread_of_torch_and_computing_keeps_its_own():
    def prepared():
        for _ in range(3):
            seen.append(torch.get_num_threads())
            yield torch.zeros(1), torch.zeros(1)

    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        mine = [torch.get_num_threads() for _ in prefetch(prepared())]
    finally:
        torch.set_num_threads(before)
    assert (seen, mine) == ([1] * 3, [2] * 3)
