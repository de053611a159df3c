"""A machine in order is green; every planted fault is found, nothing else turns red, and its remedy is named."""

import socket

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from planted import DAY, SERVER, SITE, Authority, allow, free_port, installed, red, site_file, write

from fedpeft.common.fingerprint import WHEEL
from fedpeft.deploy.doctor.examine import CHECKS, healthy
from fedpeft.deploy.doctor.finding import FAULT, OK
from fedpeft.flare.rendering import ALLOW_LIST


def test_a_machine_in_order_is_green(place):
    findings = place.examined()
    assert {item.state for item in findings} == {OK}, findings
    assert {item.check.split()[0] for item in findings} == {
        check.name.split()[0] for check in CHECKS if check.name != "port"
    }


def other_python(place, patch):
    patch.syspath_prepend(installed(place.folder / "path", "fedpeft", "9", "Requires-Python: >=99.1"))


def other_flare(place, patch):
    patch.syspath_prepend(installed(place.folder / "path", "nvflare", "2.8.1"))


def lacking(place, patch):
    lines = ("Requires-Python: >=3.11", "Requires-Dist: no-such-package-anywhere>=1")
    patch.syspath_prepend(installed(place.folder / "path", "fedpeft", "9", *lines))


def other_wheel(place, patch):
    write(place.local / WHEEL, {"wheel": "fedpeft-2.whl", "sha256": "cd", "files_sha256": "ef"})


def expired(place, patch):
    place.authority.write(place.startup, "client", SITE, first=-9 * DAY, last=-2 * DAY)


def not_yet_valid(place, patch):
    place.authority.write(place.startup, "client", SITE, first=2 * DAY)


def root_expired(place, patch):
    place.authority.write(place.startup, "client", SITE)
    old = place.authority.signed(place.authority.name, place.authority.key.public_key(), ca=True, last=-DAY / 24)
    (place.startup / "rootCA.pem").write_bytes(old.public_bytes(Encoding.PEM))


def other_project(place, patch):
    Authority("another").write(place.startup, "client", SITE)


def mixed_kits(place, patch):
    mine = (place.startup / "rootCA.pem").read_bytes()
    Authority("another").write(place.startup, "client", SITE)
    (place.startup / "rootCA.pem").write_bytes(mine)


def other_key(place, patch):
    certificate = (place.startup / "client.crt").read_bytes()
    place.authority.write(place.startup, "client", SITE)
    (place.startup / "client.crt").write_bytes(certificate)


def no_dns(place, patch):
    """A double of a resolver that knows nobody: a real one may be asked over the network."""

    def unknown(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch.setattr(socket, "getaddrinfo", unknown)


def no_kit(place, patch):
    (place.startup / "fed_client.json").unlink()


def broken_kit(place, patch):
    write(place.startup / "fed_client.json", {"servers": []})


def without_list(place, patch):
    del place.policy["class_allow_list"]


def image_lost(place, patch):
    next((place.folder.parent / "data" / SITE).rglob("*.png")).unlink()


def image_damaged(place, patch):
    next((place.folder.parent / "data" / SITE).rglob("*.png")).write_bytes(b"\x89PNG\r\n\x1a\n")
    place.need(full=True)


def old_kit(place, patch):
    """Classes where commit 959c00f had them."""
    place.policy["components"] = [{"id": "no_shell", "path": "fedpeft.flare.limits.NoShell", "args": {}}]
    filters = [{"path": "fedpeft.flare.limits.SiteLimit", "args": {}}]
    write(place.local / "privacy.json.default", {"scopes": [{"name": "fedpeft", "task_result_filters": filters}]})


PERMITTING = '"permit": {"methods": ["flap_sam"], "max_upload_bytes": 10000000}'

# Name of the fault, how it is planted, the checks that turn red, words of what is found and of the remedy.
FAULTS = [
    ("wrong Python", other_python, {"Python"}, [">=99.1", "virtual environment"]),
    ("wrong FLARE version", other_flare, {"package nvflare"}, ["2.8.1", "==2.9.0", "pip install 'nvflare==2.9.0'"]),
    ("no package", lacking, {"package no-such-package-anywhere"}, ["not installed", "pip install 'no-such"]),
    ("wheel hash", other_wheel, {"wheel"}, ["ef", "--force-reinstall", "fedpeft-2.whl", "cd"]),
    ("no GPU", site_file(device="cuda:99"), {"GPU"}, ["cuda:99", "fedpeft_site.json"]),
    ("no such device", site_file(device="graphics"), {"GPU"}, ["graphics", "cuda:<number>", "correct"]),
    (
        "disk full",
        lambda place, patch: place.need(disk_gib=1e9),
        {"disk state_dir", "disk kit"},
        ["1e+09 GiB", "free space"],
    ),
    ("state_dir below a file", site_file(state_dir="/etc/passwd/state"), {"state_dir"}, ["/etc/passwd", "client"]),
    (
        "no state_dir",
        lambda place, patch: place.values.pop("state_dir"),
        {"state_dir"},
        ["survives a restart", "add it"],
    ),
    ("port closed", lambda place, patch: place.connect(free_port()), {"server"}, ["nothing listens", "operator"]),
    ("name unknown", no_dns, {"server"}, ["not known here", "DNS", "/etc/hosts"]),
    (
        "another server",
        lambda place, patch: place.connect(place.server.port, identity="another.example.org"),
        {"server"},
        [SERVER, "another.example.org", "corrected"],
    ),
    ("certificate expired", expired, {"certificate client.crt", "server"}, ["ended on", "state/cert.json"]),
    ("certificate of tomorrow", not_yet_valid, {"certificate client.crt", "server"}, ["valid from", "clock"]),
    ("root expired", root_expired, {"certificate rootCA.pem"}, ["ended on", "new workspace"]),
    ("another project's kit", other_project, {"server"}, ["not from this kit's root", "install the kit"]),
    ("kits mixed up", mixed_kits, {"root CA", "server"}, ["not signed by", "hangs up", "one and the same kit"]),
    ("another key", other_key, {"root CA"}, ["client.key", "one and the same kit"]),
    ("no kit", no_kit, {"kit"}, ["fed_client.json", "startup/ and local/"]),
    ("broken kit", broken_kit, {"kit"}, ["fed_client.json", "made again"]),
    (
        "checkpoint hash",
        site_file(checkpoints={"vit_b16": {"path": __file__, "sha256": "0" * 64}}),
        {"checkpoint vit_b16"},
        ["0" * 64, "fetch the file again"],
    ),
    (
        "no checkpoint",
        site_file(checkpoints={"vit_b16": {"path": "/no/weights.pth"}}),
        {"checkpoint vit_b16"},
        ["/no/weights.pth", "put the weights there"],
    ),
    ("image lost", image_lost, {"data images"}, [".png cannot be read", "fedpeft data prepare"]),
    ("image damaged", image_damaged, {"data images"}, [".png", "prepare the data again"]),
    ("no datalist", site_file(datasets={"images": "/no/datalist.json"}), {"data images"}, ["/no/datalist.json"]),
    ("allow-list missing", without_list, {"allow-list"}, ["class_allow_list", "copy"]),
    ("class missing", allow(without=ALLOW_LIST[2]), {"allow-list"}, [ALLOW_LIST[2], "add to"]),
    ("FLARE as a whole", allow("nvflare."), {"allow-list"}, ["nvflare.", "remove"]),
    ("everything", allow("*"), {"allow-list"}, ["*", "remove"]),
    (
        "list not enforced",
        lambda place, patch: place.policy.update(class_list_enforcement_mode="warn"),
        {"allow-list"},
        ["warn", "enforce", "correct"],
    ),
    (
        "clock skew",
        lambda place, patch: setattr(place.server, "clock_offset", 600.0),
        {"clock"},
        ["600 s ahead", "NTP"],
    ),
    ("site file", site_file(colour="red"), {"site file"}, ["colour", "admin/README.md"]),
    ("no permit", lambda place, patch: place.values.pop("permit"), {"permit"}, ["no method; no max", PERMITTING]),
    ("permits nothing", site_file(permit={"methods": []}), {"permit"}, ["no method", "fedpeft methods", PERMITTING]),
    ("no upload limit", site_file(permit={"methods": ["*"]}), {"permit"}, ['["*"], "max_upload_bytes": 10000000}']),
    (
        "permits what is not",
        site_file(permit={"methods": ["flap-sam"], "max_upload_bytes": 10_000_000}),
        {"permit"},
        ["unknown methods: flap-sam", "fedpeft methods", PERMITTING],
    ),
    ("an older kit", old_kit, {"class paths"}, ["flare.limits.NoShell in resources.json", "privacy.json", "provision"]),
]


@pytest.mark.parametrize(
    ("plant", "turns_red", "parts"), [item[1:] for item in FAULTS], ids=[item[0] for item in FAULTS]
)
def test_a_planted_fault_is_found_and_its_remedy_named(place, monkeypatch, plant, turns_red, parts):
    plant(place, monkeypatch)
    findings = place.examined()
    assert red(findings) == turns_red, findings
    assert not healthy(findings)
    words = " ".join(f"{item.found} {item.expected} {item.remedy}" for item in findings if item.check in turns_red)
    assert all(part in words for part in parts), words
    assert all(item.remedy and item.state == FAULT for item in findings if item.check in turns_red)
