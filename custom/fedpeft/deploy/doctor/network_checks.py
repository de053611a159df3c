"""Checks of the network: whether the server answers, accepts this kit's certificate, and has the same time.

FLARE's default transport is HTTP over mutual TLS. The checks request a page that does not exist, which changes nothing
at the server; the answer has the server's time.
"""

import errno
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection

from cryptography import x509
from cryptography.x509.oid import NameOID

from fedpeft.deploy.doctor.finding import Finding, NotChecked, fault, not_checked, ok, warning
from fedpeft.deploy.doctor.kit import Kit
from fedpeft.deploy.doctor.subject import Subject

SECONDS = 5.0
HTTP = ("http", "https")
# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: a wrong clock must not end the handshake, since a check is to report it.
NO_CHECK_TIME = 0x200000
# Seconds. The answer's time is in whole seconds and arrives late, so smaller values would prove nothing.
SKEW_WARNING, SKEW_FAULT = 5.0, 60.0


@dataclass(frozen=True)
class Answer:
    """The server's answer to a connection.

    Attributes:
        certificate: the server's certificate, issued by the kit's root.
        skew: seconds that the server's clock is ahead of this one; None if the answer has no time.
    """

    certificate: x509.Certificate
    skew: float | None

    @property
    def name(self) -> str:
        """The name in the certificate."""
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def ask(kit: Kit, host: str, port: int) -> Answer:
    """Connect to the server as this kit's participant.

    Raises:
        NotChecked: the kit's certificate or key cannot be used, or its project does not use TLS.
        OSError: the server cannot be reached, or one end refuses the other's certificate.
    """
    connection = HTTPSConnection(host, port, timeout=SECONDS, context=_context(kit))
    try:
        connection.connect()
        presented = connection.sock.getpeercert(binary_form=True)
        if presented is None:
            raise ConnectionError("it presents no certificate")
        certificate = x509.load_der_x509_certificate(presented)
        return Answer(certificate, _skew(connection) if kit.scheme in HTTP else None)
    finally:
        connection.close()


def _context(kit: Kit) -> ssl.SSLContext:
    if kit.security == "clear":
        raise NotChecked('this kit\'s project does not use TLS ("connection_security": "clear")')
    try:
        context = ssl.create_default_context(cafile=str(kit.root))
        context.load_cert_chain(kit.certificate, kit.key)
    except OSError as error:
        raise NotChecked("the kit's own certificate, key or root cannot be used") from error
    # As FLARE does: the name in the certificate is compared with the kit's, not with the host's.
    context.check_hostname = False
    context.verify_flags |= NO_CHECK_TIME
    return context


def _skew(connection: HTTPSConnection) -> float | None:
    """Seconds that the server's clock is ahead; None if its answer has no time.

    Raises:
        ConnectionError, ssl.SSLError: the server refuses the kit's certificate, which shows only after the handshake.
    """
    before = time.time()
    try:
        connection.request("GET", "/")
        date = connection.getresponse().headers["Date"]
    except HTTPException as error:
        raise ConnectionError(f"no answer in HTTP: {error}") from error
    middle = (before + time.time()) / 2
    return parsedate_to_datetime(date).timestamp() + 0.5 - middle if date else None


UNKNOWN = (
    "it hangs up: it does not know this kit's certificate, or is no FLARE server",
    "compare host and port with the server's, and install the kit that was made together with the server's",
)
# (type of error, its meaning, remedy); the first type that fits counts.
ENDS: tuple[tuple[type[OSError], str, str], ...] = (
    (socket.gaierror, "its name is not known here", "have it entered in DNS, or in /etc/hosts"),
    (
        ConnectionRefusedError,
        "nothing listens there",
        "ask the server's operator to start it, or have host and port corrected and the kits made again",
    ),
    (
        TimeoutError,
        f"no answer within {SECONDS:g} s",
        "open this machine's firewall for outgoing connections to it, and the server's for incoming ones",
    ),
    (
        ssl.SSLCertVerificationError,
        "its certificate is not from this kit's root",
        "install the kit that was made together with the server's: the two are of different projects or workspaces",
    ),
    (ssl.SSLError, *UNKNOWN),
    (ConnectionError, *UNKNOWN),
    (OSError, "it cannot be reached", "look at the network and at the firewalls in between"),
)


def server(subject: Subject) -> Iterator[Finding]:
    """Check that the server can be reached, and that both ends accept each other's certificate."""
    kit = subject.kit
    for port in kit.ports:
        where = f"{kit.host}:{port}"
        try:
            answer = ask(kit, kit.host, port)
        except OSError as error:
            _, meaning, remedy = next(end for end in ENDS if isinstance(error, end[0]))
            yield fault(f"{where}: {meaning} ({error.strerror or error})", f"server {kit.server}", remedy)
            continue
        yield _met(kit, where, answer)


def _met(kit: Kit, where: str, answer: Answer) -> Finding:
    expected = f"server {kit.server}"
    if answer.name != kit.server:
        return fault(f"{where}: {answer.name}", expected, "have host and port corrected and the kits made again")
    if answer.certificate.not_valid_after_utc < datetime.now(UTC):
        end = f"{answer.certificate.not_valid_after_utc:%Y-%m-%d}"
        return fault(
            f"{where}: its certificate ended on {end}", expected, "ask the server's operator to install a new kit"
        )
    return ok(f"{where}: {answer.name}", expected)


def ports(subject: Subject) -> Iterator[Finding]:
    """Check that the server's ports are free, or that this kit's server listens there."""
    kit = subject.kit
    for port in kit.ports:
        try:
            with socket.socket() as free:
                # As servers do, so that connections of a server that has just ended do not count.
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("", port))
        except OSError as error:
            yield _taken(kit, port, error)
        else:
            yield ok("free", of=str(port))


def _taken(kit: Kit, port: int, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE and _is_ours(kit, port):
        return ok("this kit's server listens", of=str(port))
    if error.errno == errno.EADDRINUSE:
        remedy = f"end the program that listens there (ss -ltnp 'sport = :{port}' names it), or choose another port"
        return fault("another program listens", "free, or this kit's server", f"{remedy} in project.yml", of=str(port))
    remedy = "choose a port above 1023 in project.yml, or let the server's user bind this one"
    return fault(str(error.strerror), "free", remedy, of=str(port))


def _is_ours(kit: Kit, port: int) -> bool:
    try:
        answer = ask(kit, "127.0.0.1", port)
    except OSError:
        return False
    return answer.certificate == x509.load_pem_x509_certificate(kit.certificate.read_bytes())


def clock(subject: Subject) -> Iterator[Finding]:
    """Check this machine's clock against the server's or, without the server's time, that NTP keeps it right."""
    skew, why = _measured(subject)
    if skew is None:
        yield _by_ntp(subject, why)
        return
    text = f"the server's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    expected = f"at most {SKEW_WARNING:g} s apart"
    remedy = "have both clocks kept by NTP (chrony, systemd-timesyncd): timedatectl says whether this one is"
    if abs(skew) > SKEW_FAULT:
        yield fault(text, expected, remedy)
    elif abs(skew) > SKEW_WARNING:
        yield warning(text, expected, remedy)
    else:
        yield ok(text, expected)


def _measured(subject: Subject) -> tuple[float | None, str]:
    """Seconds that the server's clock is ahead, or None; and the reason why they are not known."""
    try:
        if subject.is_server:
            return None, "this is the server"
        return ask(subject.kit, subject.kit.host, subject.kit.ports[0]).skew, "the server's answer has no time"
    except NotChecked as reason:
        return None, str(reason)
    except OSError:
        return None, "the server was not met"


def _by_ntp(subject: Subject, why: str) -> Finding:
    kept = subject.machine.synchronised()
    if kept is None:
        return not_checked(f"{why}, and the kernel does not say whether its clock is kept by NTP")
    text = f"not compared with the server's ({why})"
    if kept:
        return ok(f"kept by NTP; {text}")
    return warning(
        f"the kernel reports that nothing synchronises it; {text}",
        "kept by NTP",
        "start chrony or systemd-timesyncd; in a container or a virtual machine look at its host's clock",
    )
