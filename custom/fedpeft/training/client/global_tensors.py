"""A site's copy of the global tensors, for methods whose rounds send only a part of them."""

from collections.abc import Mapping

from torch import Tensor

from fedpeft.config.run import Run
from fedpeft.models.payload import last_trained
from fedpeft.training.client.state import StateFolder


class StaleSiteError(Exception):
    """The site missed a round and lacks tensors that later rounds do not send; the message may leave the site."""


class GlobalTensors:
    """The global tensors as this site last received them.

    A method that trains randomly selected blocks sends only these in a round. The site has the others from earlier
    rounds, and keeps them on disk so that they survive a restart.

    Args:
        run: says which tensors each round trains.
        initial: path -> tensor of the initial model, on the CPU.
        state: the folder that keeps them.

    Attributes:
        tensors: path -> tensor, for everything that the method may train.
    """

    def __init__(self, run: Run, initial: dict[str, Tensor], state: StateFolder) -> None:
        self._run, self._state = run, state
        self.tensors = initial
        # Path -> round in which the tensor was received.
        self._received = dict.fromkeys(initial, 0)
        if run.blocks and (kept := state.kept_global()) is not None:
            self.tensors, self._received = kept

    def receive(self, received: Mapping[str, Tensor], round_: int) -> None:
        """Store a round's download.

        Raises:
            StaleSiteError: a tensor missing from the download was trained since this site last received it.
        """
        self.tensors |= received
        self._received |= dict.fromkeys(received, round_)
        if self._run.blocks:
            self._state.keep_global(self.tensors, self._received)
            self._refuse_gaps(received, round_)

    def _refuse_gaps(self, received: Mapping[str, Tensor], round_: int) -> None:
        for path in self.tensors.keys() - received.keys():
            trained = last_trained(self._run, path, round_)
            if trained is not None and self._received[path] <= trained:
                raise StaleSiteError(
                    f"this site did not receive what round {trained} made of {path!r}; it takes part again once the "
                    f"selected blocks have brought everything that it missed"
                )
