"""What a check of ``fedpeft doctor`` says."""

from dataclasses import asdict, dataclass, replace

OK, WARNING, FAULT, NOT_CHECKED = "ok", "warning", "fault", "not checked"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: name of the check's row, and of which of several things.
        state: "ok", "warning", "fault" or "not checked".
        found: what is there; for "not checked" why it was not.
        expected: what should be there.
        remedy: what to do; never empty for a warning or a fault.
    """

    check: str
    state: str
    found: str
    expected: str = ""
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def of(self, row: str) -> "Finding":
        """The same under the name of its row; a check names only which of several things it speaks of."""
        return replace(self, check=f"{row} {self.check}".strip())


class NotChecked(Exception):
    """The check lacks what it needs; the message says what."""


def ok(found: str, expected: str = "", of: str = "") -> Finding:
    """As it should be."""
    return Finding(of, OK, found, expected)


def warning(found: str, expected: str, remedy: str, of: str = "") -> Finding:
    """May stop a run later."""
    return Finding(of, WARNING, found, expected, remedy)


def fault(found: str, expected: str, remedy: str, of: str = "") -> Finding:
    """Must be repaired before the machine can take part."""
    return Finding(of, FAULT, found, expected, remedy)


def not_checked(why: str, of: str = "") -> Finding:
    """The check could not be made."""
    return Finding(of, NOT_CHECKED, why)
