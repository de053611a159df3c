"""The next batch is prepared while this one is computed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from fedpeft.train.loop import Batch


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches in the same order, each prepared by one background thread while the one before is in use.

    What preparing raises is raised where its batch would have come. Closing this generator ends the thread, at the
    latest with the batch that it is at.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch
