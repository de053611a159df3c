"""Can this machine take part? A table of checks, for a hospital's machine, the server and an admin's.

A check is a function of the subject that yields findings; it may raise whatever it likes, the doctor goes on.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpeft.deploy.doctor import machine as doctor_machine
from fedpeft.deploy.doctor import network as doctor_network
from fedpeft.deploy.doctor import policy as doctor_policy
from fedpeft.deploy.doctor import site as doctor_site
from fedpeft.deploy.doctor.finding import FAULT, Finding, NotChecked, fault, not_checked
from fedpeft.deploy.doctor.kit import ADMIN, CLIENT, SERVER
from fedpeft.deploy.doctor.subject import Needs, Subject
from fedpeft.training.client.site_file import NAME


@dataclass(frozen=True)
class Check:
    """A row of the table.

    Attributes:
        name: what the findings are called.
        run: makes them.
        roles: of the machines that it is for.
    """

    name: str
    run: Callable[[Subject], Iterator[Finding]]
    roles: tuple[str, ...] = (CLIENT, SERVER, ADMIN)


TRAINS = (CLIENT,)
HOLDS_WEIGHTS = (CLIENT, SERVER)

CHECKS = (
    Check("Python", doctor_machine.python),
    Check("package", doctor_machine.packages),
    Check("wheel", doctor_machine.wheel),
    Check("kit", doctor_policy.kit),
    Check("certificate", doctor_policy.certificates),
    Check("root CA", doctor_policy.root_ca),
    Check("port", doctor_network.ports, (SERVER,)),
    Check("server", doctor_network.server, (CLIENT, ADMIN)),
    Check("clock", doctor_network.clock),
    Check("allow-list", doctor_policy.allow_list, HOLDS_WEIGHTS),
    Check("site file", doctor_site.site_file, HOLDS_WEIGHTS),
    Check("permit", doctor_site.permit, TRAINS),
    Check("checkpoint", doctor_site.checkpoints, HOLDS_WEIGHTS),
    Check("GPU", doctor_machine.gpu, TRAINS),
    Check("disk", doctor_machine.disk, HOLDS_WEIGHTS),
    Check("state_dir", doctor_machine.state_dir, TRAINS),
    Check("data", doctor_site.data, TRAINS),
)


def subject_of(site: Path | None, kit: Path | None, name: str | None, needs: Needs) -> Subject:
    """A site file in a kit's local/ brings its kit, and a kit brings its site file."""
    if kit is None and site is not None and (site.absolute().parent.parent / "startup").is_dir():
        kit = site.absolute().parent.parent
    kit = kit and kit.absolute()
    subject = Subject(kit, site, name, needs)
    if site is None and kit is not None and subject.role != ADMIN:
        return Subject(kit, kit / "local" / NAME, name, needs)
    return subject


def examine(subject: Subject, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    """Every check that is for a machine of this role, in the table's order."""
    return [finding for check in checks if subject.role in check.roles for finding in _made(check, subject)]


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is red."""
    return all(finding.state != FAULT for finding in findings)


def _made(check: Check, subject: Subject) -> Iterator[Finding]:
    try:
        for finding in check.run(subject):
            yield finding.of(check.name)
    except NotChecked as reason:
        yield not_checked(str(reason)).of(check.name)
    except Exception as error:  # one check's defect must not hide what all others find
        yield fault(
            f"the check failed: {type(error).__name__}: {error}",
            "an answer",
            "correct what the message names; if it names nothing of yours, report it with fedpeft --version",
        ).of(check.name)
