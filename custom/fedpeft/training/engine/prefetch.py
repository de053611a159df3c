"""The next batch is prepared while this one is computed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from fedpeft.tasks.types import Batch


def prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches in the same order, each prepared by one background thread while the one before is in use.

    What preparing raises is raised where its batch would have come. Closing this generator ends the thread, at the
    latest with the batch that it is at.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        # A second team of helpers, even one that sleeps, makes every product of the first wait longer for its own: an
        # epoch of bench_epoch.py on 2 cores took a fifth longer.
        threads = torch.get_num_threads()
        thread.submit(_without_helpers).result()
        torch.set_num_threads(threads)
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _without_helpers() -> None:
    """Let torch compute on this thread alone; the caller gives the number back to the others."""
    torch.get_num_threads()  # torch gives a new thread the number of all the first time that it asks, and not again
    torch.set_num_threads(1)
