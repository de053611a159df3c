"""The form of a comparison's tables, and the names of the settings in them."""

from dataclasses import dataclass

from fedpeft.study.plan.experiments import CENTRALIZED, FEDERATED, INITIAL, LOCAL
from fedpeft.study.results.summary import EVERYWHERE

TITLES = {
    INITIAL: "Initial model",
    LOCAL: "Local",
    EVERYWHERE: "Local everywhere",
    FEDERATED: "Federated",
    CENTRALIZED: "Centralized",
}


@dataclass(frozen=True)
class Table:
    """A table for people.

    Attributes:
        columns: headings.
        blocks: a block of lines for each method; a line has a text for each column.
        once: number of last columns that hold for a whole block and are filled in its first line only.
        sizes: the content of these columns as one sentence for each method.
        notes: explanations, one sentence each.
    """

    columns: list[str]
    blocks: list[list[list[str]]]
    once: int
    sizes: list[str]
    notes: list[str]

    def markdown(self) -> str:
        """The table and its notes as Markdown."""
        rule = ["---"] * 2 + ["---:"] * (len(self.columns) - 2)
        lines = [self.columns, rule, *(line for block in self.blocks for line in block)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "".join(f"\n{note}\n" for note in self.notes)


def signed(value: float, digits: int = 4) -> str:
    """A change for people: with its sign, unless it rounds to zero, which is neither a gain nor a loss."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"
