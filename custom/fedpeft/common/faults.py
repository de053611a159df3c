"""Several faults at once: people repair a data set file by file and want the whole list, not its first line."""

from collections.abc import Sequence


class FaultError(ValueError):
    """Everything that is wrong with a data set.

    Attributes:
        faults: one sentence a fault, each naming its file.
    """

    def __init__(self, what: str, faults: Sequence[str]) -> None:
        """Keep the list and make it the message.

        Args:
            what: what was being done, the head of the message.
            faults: one sentence a fault.
        """
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__("\n  ".join((f"{what}: {count}; nothing was written", *self.faults)))
