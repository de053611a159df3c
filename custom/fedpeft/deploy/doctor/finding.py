"""Findings of the checks of ``fedpeft doctor``."""

from dataclasses import asdict, dataclass, replace

OK, WARNING, FAULT, NOT_CHECKED = "ok", "warning", "fault", "not checked"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: the check's name, and which of several things it has looked at.
        state: "ok", "warning", "fault" or "not checked".
        found: what is there; for "not checked", why it was not checked.
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

    def of(self, check: str) -> "Finding":
        """The finding under its check's name; the check itself only names which of several things it has looked at."""
        return replace(self, check=f"{check} {self.check}".strip())


class NotChecked(Exception):
    """A check lacks something that it needs; the message says what."""


def ok(found: str, expected: str = "", of: str = "") -> Finding:
    """A thing as it should be."""
    return Finding(of, OK, found, expected)


def warning(found: str, expected: str, remedy: str, of: str = "") -> Finding:
    """A thing that may stop a run later."""
    return Finding(of, WARNING, found, expected, remedy)


def fault(found: str, expected: str, remedy: str, of: str = "") -> Finding:
    """A thing to repair before the machine can take part."""
    return Finding(of, FAULT, found, expected, remedy)


def not_checked(why: str, of: str = "") -> Finding:
    """A thing that could not be checked."""
    return Finding(of, NOT_CHECKED, why)
