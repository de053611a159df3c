"""The checks of ``fedpeft doctor``, the roles of the machines that each is for, and how they run.

A check is a function that takes a subject and yields findings. If it raises, the other checks still run.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpeft.deploy.doctor import kit_checks, machine_checks, network_checks, site_checks
from fedpeft.deploy.doctor.finding import FAULT, Finding, NotChecked, fault, not_checked
from fedpeft.deploy.doctor.kit import ADMIN, CLIENT, SERVER
from fedpeft.deploy.doctor.subject import Needs, Subject
from fedpeft.training.client.site_file import NAME


@dataclass(frozen=True)
class Check:
    """A check of a machine.

    Attributes:
        name: name of the check in its findings.
        run: function that yields the findings.
        roles: roles of the machines to which it applies.
    """

    name: str
    run: Callable[[Subject], Iterator[Finding]]
    roles: tuple[str, ...] = (CLIENT, SERVER, ADMIN)


TRAINS = (CLIENT,)
HOLDS_WEIGHTS = (CLIENT, SERVER)

CHECKS = (
    Check("Python", machine_checks.python),
    Check("package", machine_checks.packages),
    Check("wheel", machine_checks.wheel),
    Check("kit", kit_checks.kit),
    Check("certificate", kit_checks.certificates),
    Check("root CA", kit_checks.root_ca),
    Check("port", network_checks.ports, (SERVER,)),
    Check("server", network_checks.server, (CLIENT, ADMIN)),
    Check("clock", network_checks.clock),
    Check("allow-list", kit_checks.allow_list, HOLDS_WEIGHTS),
    Check("class paths", kit_checks.class_paths, HOLDS_WEIGHTS),
    Check("site file", site_checks.site_file, HOLDS_WEIGHTS),
    Check("permit", site_checks.permit, TRAINS),
    Check("checkpoint", site_checks.checkpoints, HOLDS_WEIGHTS),
    Check("GPU", machine_checks.gpu, TRAINS),
    Check("disk", machine_checks.disk, HOLDS_WEIGHTS),
    Check("state_dir", machine_checks.state_dir, TRAINS),
    Check("data", site_checks.data, TRAINS),
)


def subject_of(site: Path | None, kit: Path | None, name: str | None, needs: Needs) -> Subject:
    """Make the subject. A site file in a kit's local/ implies that kit, and a kit implies its site file."""
    if kit is None and site is not None and (site.absolute().parent.parent / "startup").is_dir():
        kit = site.absolute().parent.parent
    kit = kit and kit.absolute()
    subject = Subject(kit, site, name, needs)
    if site is None and kit is not None and subject.role != ADMIN:
        return Subject(kit, kit / "local" / NAME, name, needs)
    return subject


def examine(subject: Subject, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    """Return the findings of all checks that apply to the machine's role, in the order of the checks."""
    return [finding for check in checks if subject.role in check.roles for finding in _findings(check, subject)]


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether no finding is a fault."""
    return all(finding.state != FAULT for finding in findings)


def _findings(check: Check, subject: Subject) -> Iterator[Finding]:
    try:
        for finding in check.run(subject):
            yield finding.of(check.name)
    except NotChecked as reason:
        yield not_checked(str(reason)).of(check.name)
    except Exception as error:  # a defect of one check must not hide what the others find
        yield fault(
            f"the check failed: {type(error).__name__}: {error}",
            "an answer",
            "correct what the message names; if it names nothing of yours, report it with fedpeft --version",
        ).of(check.name)
