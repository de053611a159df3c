"""An error that lists every fault, so that people can repair all of them before they try again."""

from collections.abc import Sequence


class FaultError(ValueError):
    """Everything that is wrong with a data set, or that keeps a comparison from beginning.

    Attributes:
        faults: one sentence per fault, each naming its file or option.
    """

    def __init__(self, what: str, faults: Sequence[str]) -> None:
        """Keep the list and make it the message.

        Args:
            what: what was being done; the message begins with it.
            faults: one sentence per fault.
        """
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__("\n  ".join((f"{what}: {count}; nothing was written", *self.faults)))
