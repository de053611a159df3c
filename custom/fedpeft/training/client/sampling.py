"""What a site draws in each round: stacks or pictures, their augmentation, their order.

Augmentation makes every epoch's pictures new, so that nothing of a frozen encoder's work could be used twice. Rows with
a frozen encoder therefore have ``GROUPS`` augmentation groups: the batches of a run's first ``GROUPS`` epochs, which
later epochs repeat in turn, each time in a new order. A volume is seen in that many augmented versions instead of one
an epoch; that is the only difference to other rows, and it holds whether or not embeddings are kept. A run of no more
than ``GROUPS`` epochs draws what any other row would.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from math import ceil

import torch

from fedpeft.config.run import Run
from fedpeft.config.seeds import seed_of
from fedpeft.tasks.base import Epochs
from fedpeft.tasks.types import Batch
from fedpeft.training.engine.embeddings import FrozenEncoder
from fedpeft.training.engine.prefetch import prefetch

GROUPS = 4
# Round and epoch in it, 0-based.
Epoch = tuple[int, int]


class RoundSampler:
    """The batches of a site's rounds, determined by the run's seed and the site's name.

    Args:
        run: gives seed, rounds and local epochs.
        site: its name.
        data: the site's training data.
        frozen: the network, if its image encoder is frozen; None otherwise.
    """

    def __init__(self, run: Run, site: str, data: Epochs, frozen: FrozenEncoder | None) -> None:
        self._run, self._site, self._data, self._frozen = run, site, data, frozen
        self._encoded = False

    def batches(self, round_: int) -> Iterator[Batch]:
        """A round's batches, one epoch after the other, without end."""
        for number in count():
            epoch = round_, number
            first = repeated(self._run, epoch) if self._frozen else epoch
            order = None if first == epoch else self._shuffled(epoch)
            yield from self._data.epoch(self._seed(*first), order)

    def encode(self, round_: int, go_on: Callable[[], None]) -> None:
        """Embed all that this round and later ones draw, if the encoder is frozen and as far as there is room.

        Never more work than the epochs themselves would be, since there are at least as many of these as groups.

        Args:
            round_: 0-based.
            go_on: called before every forward pass; what it raises ends the work, of which nothing is lost.
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
    """The epoch whose batches an epoch of a row with a frozen encoder has: itself, if it is the first of its group."""
    a_round = ceil(run.training.local_epochs)
    different = max(1, min(GROUPS, int(run.federation.rounds * run.training.local_epochs)))
    return divmod((epoch[0] * a_round + epoch[1]) % different, a_round)


def groups(run: Run, round_: int) -> list[Epoch]:
    """The first epochs of the groups that a round and all later ones have."""
    later = (
        (number, epoch)
        for number in range(round_, run.federation.rounds)
        for epoch in range(ceil(run.training.local_epochs))
    )
    return sorted({repeated(run, epoch) for epoch in later})
