"""The batches of a site's rounds: their content, augmentation and order.

Augmentation changes the images in every epoch, so the embeddings of a frozen encoder could never be used twice. A
method with a frozen encoder therefore repeats the batches of the run's first ``GROUPS`` epochs in turn, each time in a
new order, and sees ``GROUPS`` augmented versions of a case instead of one an epoch. This holds whether or not
embeddings are kept. A run of at most ``GROUPS`` epochs has the same batches as with any other method.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from math import ceil

import torch

from fedpeft.config.run import Run
from fedpeft.config.seeds import seed_of
from fedpeft.tasks.base import TrainingData
from fedpeft.tasks.types import Batch
from fedpeft.training.engine.embeddings import FrozenEncoder
from fedpeft.training.engine.prefetch import prefetch

GROUPS = 4
# (round, epoch within the round), both 0-based.
Epoch = tuple[int, int]


class RoundSampler:
    """Yields the batches of a site's rounds, which the run's seed and the site's name determine.

    Args:
        run: gives seed, rounds and local epochs.
        site: the site's name.
        data: the site's training data.
        frozen: the network if its image encoder is frozen, else None.
    """

    def __init__(self, run: Run, site: str, data: TrainingData, frozen: FrozenEncoder | None) -> None:
        self._run, self._site, self._data, self._frozen = run, site, data, frozen
        self._encoded = False

    def batches(self, round_: int) -> Iterator[Batch]:
        """Yield a round's batches, epoch after epoch, without end."""
        for number in count():
            epoch = round_, number
            first = repeated(self._run, epoch) if self._frozen else epoch
            order = None if first == epoch else self._shuffled(epoch)
            yield from self._data.epoch(self._seed(*first), order)

    def encode(self, round_: int, go_on: Callable[[], None]) -> None:
        """Embed the batches of this round and later ones until the cache is full; do nothing without a frozen encoder.

        This never encodes more than training would, since there are at least as many epochs as distinct ones.

        Args:
            round_: 0-based.
            go_on: called before every forward pass; what it raises ends the work, and finished embeddings stay.
        """
        if self._frozen is None or self._encoded:
            return
        device = next(self._frozen.parameters()).device
        for epoch in groups(self._run, round_):
            with closing(prefetch(self._data.epoch(self._seed(*epoch)))) as batches:
                for images, _ in batches:
                    go_on()
                    if self._frozen.full:
                        return
                    self._frozen.encode(images.to(device))
        self._encoded = True

    def _seed(self, *parts: object) -> int:
        return seed_of(self._run.training.seed, self._site, *parts)

    def _shuffled(self, epoch: Epoch) -> list[int]:
        generator = torch.Generator().manual_seed(self._seed(*epoch, "order"))
        return torch.randperm(self._data.steps(), generator=generator).tolist()


def repeated(run: Run, epoch: Epoch) -> Epoch:
    """The epoch among the run's first ``GROUPS`` whose batches this epoch repeats if the encoder is frozen."""
    a_round = ceil(run.training.local_epochs)
    different = max(1, min(GROUPS, int(run.federation.rounds * run.training.local_epochs)))
    return divmod((epoch[0] * a_round + epoch[1]) % different, a_round)


def groups(run: Run, round_: int) -> list[Epoch]:
    """The epochs among the run's first ``GROUPS`` that this round or a later one repeats."""
    later = (
        (number, epoch)
        for number in range(round_, run.federation.rounds)
        for epoch in range(ceil(run.training.local_epochs))
    )
    return sorted({repeated(run, epoch) for epoch in later})
