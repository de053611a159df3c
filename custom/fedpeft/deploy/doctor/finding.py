"""Findings of the checks of ``fedpeft doctor``."""

from dataclasses import asdict, dataclass, replace

OK, WARNING, FAULT, NOT_CHECKED = "ok", "warning", "fault", "not checked"


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        check: name of the check, followed by the checked item if there are several.
        state: "ok", "warning", "fault" or "not checked".
        found: what the check found, or why it could not check.
        expected: what it expected.
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
        """The same finding with the check's name before the item."""
        return replace(self, check=f"{check} {self.check}".strip())


class NotChecked(Exception):
    """A check lacks an input that it needs; the message says which."""


def ok(found: str, expected: str = "", of: str = "") -> Finding:
    """The item is as it should be."""
    return Finding(of, OK, found, expected)


def warning(found: str, expected: str, remedy: str, of: str = "") -> Finding:
    """The item may stop a run later."""
    return Finding(of, WARNING, found, expected, remedy)


def fault(found: str, expected: str, remedy: str, of: str = "") -> Finding:
    """The item must be repaired before the machine can take part."""
    return Finding(of, FAULT, found, expected, remedy)


def not_checked(why: str, of: str = "") -> Finding:
    """The item could not be checked."""
    return Finding(of, NOT_CHECKED, why)
