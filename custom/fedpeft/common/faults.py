"""An error that lists every fault, so that people can repair all of them before they try again."""

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, such as "1 fault" and "2 faults"; the plural is the noun and an s unless it is given."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


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
        super().__init__("\n  ".join((f"{what}: {counted(len(faults), 'fault')}; nothing was written", *self.faults)))
