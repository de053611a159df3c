"""Checks of a kit: its participant, its certificates, the allow-list and the classes that its files name."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedpeft.common.files import read_json
from fedpeft.common.fingerprint import PACKAGE
from fedpeft.deploy.doctor.finding import Finding, fault, ok, warning
from fedpeft.deploy.doctor.subject import Subject
from fedpeft.flare.rendering import ALLOW_LIST

SOON = timedelta(days=30)
RESOURCES = "resources.json"
# Files of local/ that name classes; FLARE falls back to the same names with .default appended.
NAMING = (RESOURCES, "privacy.json")
FULL_LIST = "the classes of fedpeft.flare that its jobs name, one by one"


def kit(subject: Subject) -> Iterator[Finding]:
    """Check that there is a kit and that it can be read."""
    try:
        found = subject.read_kit()
    except (ValueError, OSError) as error:
        yield fault(str(error), "a kit of nvflare provision", "give the folder that holds startup/ and local/ as --kit")
        return
    yield ok(f"{found.role} {found.name} of project {found.project}")


def certificates(subject: Subject) -> Iterator[Finding]:
    """Check that the participant's certificate and the project's root are valid now and for another month."""
    kit = subject.kit
    own = (
        f"ask the project admin for a new one: provisioning again keeps the old one until the entry {kit.name!r} is "
        f"taken out of the workspace's state/cert.json"
    )
    root = "ask the project admin for new kits of a new workspace: every participant needs one"
    for file, remedy in ((kit.certificate, own), (kit.root, root)):
        yield _validity(file, _certificate(file), remedy)


def _validity(file: Path, certificate: x509.Certificate, remedy: str) -> Finding:
    now, first, last = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        clock = f"set this machine's clock, it says {now:%Y-%m-%d %H:%M} UTC; or wait"
        return fault(f"valid from {first:%Y-%m-%d %H:%M} UTC", "valid now", clock, of=file.name)
    if now > last:
        return fault(f"ended on {last:%Y-%m-%d}", "valid now", remedy, of=file.name)
    if last - now < SOON:
        return warning(f"ends on {last:%Y-%m-%d}", f"valid for {SOON.days} days", remedy, of=file.name)
    return ok(f"valid until {last:%Y-%m-%d}", of=file.name)


def root_ca(subject: Subject) -> Iterator[Finding]:
    """Check that certificate, key and root belong together."""
    kit = subject.kit
    own, root = _certificate(kit.certificate), _certificate(kit.root)
    remedy = f"install startup/ of one and the same kit in {kit.folder}"
    if load_pem_private_key(kit.key.read_bytes(), password=None).public_key() != own.public_key():
        yield fault(f"{kit.key.name} is the key of another certificate", kit.certificate.name, remedy)
    elif not _issued(own, root):
        yield fault(f"{kit.certificate.name} is not signed by {kit.root.name}", "one project's files", remedy)
    else:
        yield ok(f"{kit.certificate.name} is signed by {kit.root.name}")


def _issued(own: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        own.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no certificate ({error}); install the kit's startup/ again") from error


def allow_list(subject: Subject) -> Iterator[Finding]:
    """Check that the allow-list has every class that fedpeft's jobs need, and no prefix."""
    file = _policy_file(subject.local)
    if not file.is_file():
        yield fault(f"no {file}", FULL_LIST, f"copy {RESOURCES} from the kit, or from poc/simulator/local")
        return
    values = read_json(file)
    listed = values.get("class_allow_list")
    if listed is None:
        yield fault(
            f"{file} has no \"class_allow_list\", so FLARE's own list applies, which lacks fedpeft's classes",
            FULL_LIST,
            f'copy "class_allow_list" from the kit\'s local/{RESOURCES}',
        )
        return
    wrong = list(_compared(file, listed))
    if (mode := values.get("class_list_enforcement_mode", "enforce")) != "enforce":
        wrong.append(fault(f'"class_list_enforcement_mode" is {mode!r}', "enforce", f"correct it in {file}"))
    yield from wrong or [ok(f"{len(listed)} classes, as fedpeft's jobs need them")]


def _compared(file: Path, listed: list[str]) -> Iterator[Finding]:
    missing = [name for name in ALLOW_LIST if name not in listed]
    surplus = [name for name in listed if name not in ALLOW_LIST]
    # FLARE calls whatever a job names, so a prefix opens every function that the modules below it import.
    wide = [name for name in surplus if name == "*" or name.endswith(".") or name == "nvflare"]
    if missing:
        yield fault(f"missing: {', '.join(missing)}", FULL_LIST, f'add to "class_allow_list" in {file}')
    if wide:
        yield fault(
            f"opens more than single classes: {', '.join(wide)}",
            'no prefix, since "nvflare." lets a job start commands',
            f'remove from "class_allow_list" in {file}',
        )
    if more := [name for name in surplus if name not in wide]:
        yield warning(f"not of fedpeft: {', '.join(more)}", FULL_LIST, f"remove from {file} what no job of yours needs")


def class_paths(subject: Subject) -> Iterator[Finding]:
    """Check that every fedpeft class that the kit's files name exists in the installed version."""
    lost: dict[str, list[str]] = {}
    named = 0
    for file in sorted(path for name in NAMING for path in subject.local.glob(f"{name}*")):
        paths = set(_class_paths(read_json(file)))
        named += len(paths)
        for path in sorted(paths):
            if not _exists(path):
                lost.setdefault(path, []).append(file.name)
    if not lost:
        yield ok(f"{named} named, all installed")
        return
    yield fault(
        "; ".join(f"{path} in {', '.join(files)}" for path, files in lost.items()),
        "classes of the installed version",
        f"the kit was made for another version: have the kits made again with nvflare provision --force, which leaves "
        f"certificates as they are, and copy {' and '.join(f'{name}*' for name in NAMING)} to {subject.local}",
    )


def _class_paths(value: Any) -> Iterator[str]:
    """Yield every fedpeft class under the key "path", anywhere in a JSON value."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and path.startswith(f"{PACKAGE}."):
            yield path
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _class_paths(item)


def _exists(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        return hasattr(import_module(module), name)
    except ModuleNotFoundError:
        return False


def _policy_file(local: Path) -> Path:
    """The file that FLARE reads: resources.json, or resources.json.default if that is missing."""
    files = (local / RESOURCES, local / f"{RESOURCES}.default")
    return next((file for file in files if file.is_file()), files[0])
