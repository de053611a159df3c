"""Prepare the next batch while the model computes the present one."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from fedpeft.tasks.types import Batch


def prefetch(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Yield the same batches in the same order; a background thread prepares each while the one before is in use.

    An exception of the preparation is raised in place of its batch. Closing this generator ends the thread, at the
    latest when the batch in preparation is ready.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        # Workers of this thread, even idle ones, would make every matrix product of the main thread wait longer for its
        # own: an epoch of tests/benchmarks/bench_epoch.py on 2 cores took a fifth longer.
        threads = torch.get_num_threads()
        thread.submit(_without_workers).result()
        torch.set_num_threads(threads)
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _without_workers() -> None:
    """Let torch compute on this thread alone; the caller restores the number for the others."""
    torch.get_num_threads()  # the first call sets a new thread to the common number, so it must come before the next
    torch.set_num_threads(1)
