"""Prepares the next batch while the present one is computed."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from fedpeft.tasks.types import Batch


def prefetch(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The same batches in the same order, each prepared by one background thread while the one before is in use.

    An exception of the preparation is raised where its batch would have come. Closing this generator ends the thread,
    at the latest with the batch that it is at.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        # If this thread had workers of its own, even sleeping ones, every product of the first thread would wait longer
        # for its workers: an epoch of bench_epoch.py on 2 cores took a fifth longer.
        threads = torch.get_num_threads()
        thread.submit(_without_workers).result()
        torch.set_num_threads(threads)
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _without_workers() -> None:
    """Let torch compute on this thread alone; the caller restores the number for the others."""
    torch.get_num_threads()  # torch gives a new thread the common number when it first asks, and not again
    torch.set_num_threads(1)
