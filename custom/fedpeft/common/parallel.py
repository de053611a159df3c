"""Run independent pieces of work on all of torch's threads, each piece on one thread.

Several threads hardly speed up one small matrix product, but they speed up many of them. The result of a piece does not
depend on the number of threads either.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return ``work`` of every item in their order, computed without gradients, as many at a time as torch has threads.

    Raises:
        Exception: what ``work`` raised for the first item that failed, in the order of the items.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [torch.no_grad()(work)(item) for item in items]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(torch.no_grad()(work), items))
    finally:
        torch.set_num_threads(threads)
