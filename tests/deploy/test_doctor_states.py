"""Yellow, grey, and what decides between them: GPU memory, clocks, what is given and what is not."""

import shutil

import pytest
from planted import DAY, SITE, allow, free_port, red, site_file, yellow

from fedpeft.deploy.doctor.examine import CHECKS, Check, examine, healthy, subject_of
from fedpeft.deploy.doctor.finding import NOT_CHECKED, OK
from fedpeft.deploy.doctor.subject import Gpu, Machine, Needs, Subject

GIB = 2**30


def double(free_gib):
    """A double of a machine with one GPU: most have none to fill."""
    return Machine(gpus=lambda: (Gpu("double", int(free_gib * GIB), 16 * GIB),), cuda="13", synchronised=lambda: True)


@pytest.mark.parametrize(
    ("free", "asked", "state"),
    [
        (1.0, None, "fault"),
        (4.0, None, "warning"),
        (8.0, None, "ok"),
        (8.0, 12.0, "fault"),
        (1.0, 0.5, "ok"),
    ],
)
def test_too_little_gpu_memory(place, free, asked, state):
    """The GPU is a double; the figures are those of the site file's backbone, or what is asked for."""
    place.values["device"], place.machine = "cuda:0", double(free)
    place.need(gpu_gib=asked)
    (gpu,) = (item for item in place.examined() if item.check == "GPU")
    assert gpu.state == state
    assert f"{free:.1f} of 16.0 GiB" in gpu.found
    assert ("nvidia-smi" in gpu.remedy) == (state != "ok")


@pytest.mark.parametrize(
    ("machine", "remedy"),
    [
        (Machine(gpus=lambda: (), cuda=None), "build of torch with CUDA"),
        (Machine(gpus=lambda: (), cuda="13"), "driver"),
        (double(8), "first GPU is cuda:0"),
    ],
    ids=["torch without CUDA", "no driver", "too few"],
)
def test_why_a_gpu_is_missing(place, machine, remedy):
    place.values["device"], place.machine = "cuda:1", machine
    (gpu,) = (item for item in place.examined() if item.check == "GPU")
    assert gpu.state == "fault" and remedy in gpu.remedy


@pytest.mark.parametrize(
    ("plant", "turns_yellow"),
    [
        (
            lambda place, patch: place.authority.write(place.startup, "client", SITE, last=20 * DAY),
            {"certificate client.crt"},
        ),
        (lambda place, patch: setattr(place.server, "clock_offset", -20.0), {"clock"}),
        (allow("hospital.filters.Own"), {"allow-list"}),
        (site_file(checkpoints={"vit_b17": {"path": __file__}}), {"checkpoint vit_b17"}),
        (site_file(checkpoints={"vit_b16-medical": {"path": __file__}}), {"checkpoint vit_b16-medical"}),
    ],
    ids=["certificate soon", "small skew", "own class", "name of no backbone", "no hash stated"],
)
def test_what_may_wait_is_yellow(place, plant, turns_yellow):
    plant(place, None)
    findings = place.examined()
    assert (red(findings), yellow(findings)) == (set(), turns_yellow), findings
    assert healthy(findings)


@pytest.mark.parametrize(("kept", "state"), [(True, "ok"), (False, "warning"), (None, NOT_CHECKED)])
def test_without_the_servers_time_the_kernel_is_asked(place, kept, state):
    """Whether the kernel is told the time is a double: a test cannot stop what keeps the clock."""
    place.machine = Machine(synchronised=lambda: kept)
    place.connect(free_port())
    (clock,) = (item for item in place.examined() if item.check == "clock")
    assert clock.state == state
    assert "server was not met" in clock.found


def test_a_check_that_breaks_hides_no_other():
    def broken(subject):
        raise ZeroDivisionError("by the check")
        yield

    first, second = examine(Subject(), [Check("broken", broken), CHECKS[0]])
    assert first.state == "fault" and "ZeroDivisionError: by the check" in first.found and first.remedy
    assert (second.check, second.state) == ("Python", OK)


def test_what_is_not_given_is_not_checked():
    findings = examine(Subject(machine=Machine(synchronised=lambda: True)))
    states = {item.check: item.state for item in findings}
    assert not red(findings)
    assert {name for name, state in states.items() if state == NOT_CHECKED} == {
        check.name for check in CHECKS if check.name not in ("Python", "package", "clock", "port")
    }
    assert all("--" in item.found for item in findings if item.state == NOT_CHECKED)


def test_a_kit_brings_its_site_file_and_the_other_way_round(place):
    place.examined()
    file = place.local / "fedpeft_site.json"
    for given in ((None, place.folder), (file, None), (file, place.folder)):
        subject = subject_of(*given, None, Needs())
        assert (subject.kit_folder, subject.site_path, subject.name) == (place.folder, file, SITE)


def test_a_site_without_a_name_is_not_guessed(place):
    place.examined()
    site = place.folder.parent / "alone.json"
    shutil.copyfile(place.local / "fedpeft_site.json", site)
    states = {
        name: {item.check: item.state for item in examine(subject_of(site, None, name, Needs()))}["data images"]
        for name in (None, SITE, "site-9")
    }
    assert states == {None: NOT_CHECKED, SITE: "ok", "site-9": "fault"}
