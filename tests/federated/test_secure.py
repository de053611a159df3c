"""A federation from provisioned kits over mTLS, with code in jobs forbidden: what runs, what is refused, who stays out.

One start of server and hospitals serves the whole module, and its jobs run beside one another.
"""

import json
import re
import shutil
import socket
import ssl
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import nibabel
import pytest
import torch
from consortium import ADMIN, IT, LEAD, Consortium
from nvflare.fuel.hci.client import file_transfer

from fedpeft.cli.main import main
from fedpeft.config.jobs import Job
from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_site
from fedpeft.flare.rendering import write
from fedpeft.training.server.run_folder import find_run

SITES = ["hospital-1", "hospital-2"]
RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=2, image_size=48)
FOREIGN_CLASS = {
    "client": "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor",
    "server": "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
}


@pytest.fixture(scope="module")
def consortium(tmp_path_factory, small_phantom):
    with Consortium(tmp_path_factory.mktemp("secure") / "consortium", SITES, small_phantom) as consortium:
        consortium.start("server")
        consortium.start(*SITES)
        yield consortium


def made(consortium, name, run=RUN):
    return write(Job(name, run, min_sites=2, poll_seconds=0.1), consortium.folder / "jobs")


def with_code(job):
    (job / "app" / "custom").mkdir()
    (job / "app" / "custom" / "trainer.py").write_text("print('here')\n")
    return job


def with_foreign_class(job, side):
    file = job / "app" / "config" / f"config_fed_{side}.json"
    content = json.loads(file.read_text())
    part = content["executors"][0]["executor"] if side == "client" else content["workflows"][0]
    part["path"] = FOREIGN_CLASS[side]
    file.write_text(json.dumps(content))
    return job


def command(*arguments):
    """Exit code and output of fedpeft."""
    with redirect_stdout(StringIO()) as output:
        code = main([str(argument) for argument in arguments])
    return code, output.getvalue()


@pytest.fixture(scope="module")
def jobs(consortium):
    """Ids of all jobs, submitted by console and by script, ended; and what the script printed."""
    sign, found = file_transfer.sign_folders, SimpleNamespace(results=consortium.folder / "results-of-script")

    def sign_and_change(folder, *others):
        sign(folder, *others)
        file = Path(folder, "app", "config", "config_fed_client.json")
        file.write_text(file.read_text() + "\n")

    said = consortium.console(f"submit_job {made(consortium, 'by_console')}", "list_jobs")
    found.console = re.search(r"Submitted job: (\S+)", said)[1]
    found.foreign_class = consortium.submit(with_foreign_class(made(consortium, "foreign_class"), "server"))
    found.code = consortium.submit(with_code(made(consortium, "code")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_transfer, "sign_folders", sign_and_change)
        found.tampered = consortium.submit(made(consortium, "tampered"))
        patch.setattr(file_transfer, "sign_folders", lambda *_: None)
        found.unsigned = consortium.submit(made(consortium, "unsigned"))
    found.code_of_script, found.printed = command(
        "job",
        "submit",
        made(consortium, "by_script"),
        "--kit",
        consortium.kit(LEAD),
        "--watch",
        "--every",
        0.2,
        "--out",
        found.results,
    )
    found.script = re.search(r"submitted: (\S+)", found.printed)[1]
    for job in (found.console, found.foreign_class, found.code, found.tampered, found.unsigned):
        consortium.wait(job)
    return found


@pytest.fixture(scope="module")
def simulated(federation, tmp_path_factory):
    job = Job("test", RUN, min_sites=2, poll_seconds=0.1)
    return federation(tmp_path_factory.mktemp("simulated"), job, SITES, threads=2)[1]


def test_console_and_script_give_the_simulators_weights_bit_for_bit(consortium, jobs, simulated):
    by_console, by_script = consortium.run_folder(jobs.console), find_run(jobs.results)
    for folder in (by_console, by_script, simulated):
        assert folder.description["status"] == "finished"
        assert list(folder.rounds()[0]["sites"]) == SITES
    expected = (simulated.path / "global.safetensors").read_bytes()
    for folder in (by_console, by_script):
        assert (folder.path / "global.safetensors").read_bytes() == expected
        assert (folder.path / "metrics.csv").read_text() == (simulated.path / "metrics.csv").read_text()
    assert consortium.meta(jobs.console)["status"] == "FINISHED:COMPLETED"


def test_the_script_follows_to_the_end_and_says_how_to_go_on(jobs):
    assert jobs.code_of_script == 0
    lines = jobs.printed.splitlines()
    (first,) = (line for line in lines if line.startswith("round 1/2 | Dice"))
    assert all(f"{site} 0." in first for site in SITES) and re.search(r"about \d:\d\d:\d\d left$", first)
    assert any(re.match(r"running, round 1/2: train at hospital-1", line) for line in lines)
    assert any(line.startswith("after 2 rounds | Dice") for line in lines)
    assert f"fedpeft evaluate --run {jobs.results / jobs.script} --data DIR" in jobs.printed


def test_what_was_fetched_evaluates_and_infers(jobs, small_phantom, tmp_path):
    assert command("evaluate", "--run", jobs.results, "--data", small_phantom, "--json")[0] == 0
    assert {file.name for file in find_run(jobs.results).path.glob("evaluation.*")} >= {
        "evaluation.json",
        "evaluation.csv",
    }
    image = read_site(small_phantom / "site-1" / "datalist.json").cases("test")[0].image
    code, _ = command("infer", "--run", jobs.results / jobs.script, "--image", image, "--out", tmp_path / "m.nii.gz")
    assert code == 0 and nibabel.load(tmp_path / "m.nii.gz").shape == nibabel.load(image).shape


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("code", "server: BYOC not permitted"),
        ("tampered", "server: app app does not pass signature verification"),
        ("unsigned", "server: unsigned job rejected"),
    ],
)
def test_such_a_job_is_not_deployed(consortium, jobs, name, reason, tmp_path, capsys):
    job = getattr(jobs, name)
    meta = consortium.meta(job)
    assert meta["status"] == "FINISHED:FAILED_TO_RUN"
    assert len(meta["job_deploy_detail"]) == 1 and meta["job_deploy_detail"][0].startswith(reason)
    assert not [site for site in SITES if (consortium.kit(site) / job).exists()]
    assert command("job", "watch", job, "--kit", consortium.kit(LEAD), "--every", 0.1, "--out", tmp_path)[0] == 1
    assert f"FINISHED:FAILED_TO_RUN; {reason}" in capsys.readouterr().err


def refusal(side, place):
    return f"component not authorized: Component '{FOREIGN_CLASS[side]}' at config path '{place}' is not in allow_list"


def test_a_job_that_names_another_class_is_refused_by_the_server(consortium, jobs, tmp_path, capsys):
    job = jobs.foreign_class
    assert refusal("server", "workflows.#1") in consortium.log("server")
    assert consortium.meta(job)["status"] != "FINISHED:COMPLETED"
    assert command("job", "watch", job, "--kit", consortium.kit(LEAD), "--every", 0.1, "--out", tmp_path)[0] == 1
    assert f"job {job} did not begin its run: FINISHED:" in capsys.readouterr().err


def test_a_job_that_names_another_class_is_refused_by_every_hospital(consortium, jobs):
    """Whatever the server thinks of it."""
    job = consortium.submit(with_foreign_class(made(consortium, "of_the_sites"), "client"))
    for site in SITES:
        consortium.await_log(site, refusal("client", "executors.#1.executor"))
    consortium.admin().abort(job)
    assert consortium.wait(job)["status"] == "FINISHED:ABORTED"
    assert consortium.run_folder(job).description["rounds_done"] == 0


def test_the_console_shows_the_log_and_fetches_the_result(consortium, jobs):
    said = consortium.console(f"get_job_log {jobs.console}", f"download_job {jobs.console}")
    assert "fedpeft | round 2/2 | Dice" in said
    fetched = find_run(consortium.kit(LEAD) / "transfer" / jobs.console)
    assert fetched.description["status"] == "finished"


def test_the_console_aborts_a_job_that_waits(consortium, jobs):
    """For a third hospital, which is not there."""
    job = consortium.submit(write(Job("waiting", RUN, min_sites=3), consortium.folder / "jobs"))
    assert consortium.meta(job)["status"] == "SUBMITTED"
    consortium.console(f"abort_job {job}", "y")
    assert consortium.wait(job)["status"] == "FINISHED:ABORTED"


@pytest.mark.parametrize("by", [ADMIN, IT])
def test_nobody_but_the_lead_submits(consortium, by):
    with pytest.raises(RuntimeError, match="refuses: user not authorized for the action 'submit_job"):
        consortium.submit(made(consortium, "of_another"), by)


def test_an_abort_from_the_admin_machine_ends_training_and_the_follower_says_so(consortium, jobs, tmp_path, capsys):
    job = consortium.submit(made(consortium, "endless", RUN.with_(rounds=200)))
    consortium.await_round(job, 1)
    trainers = [consortium.job_process(site, job_id=job) for site in SITES]
    assert command("job", "abort", job, "--kit", consortium.kit(LEAD))[0] == 0
    assert command("job", "watch", job, "--kit", consortium.kit(LEAD), "--every", 0.5, "--out", tmp_path)[0] == 1
    error = capsys.readouterr().err
    assert re.search(r"did not finish, it ended as 'stopped after \d+ of 200 rounds': FINISHED:ABORTED", error)
    assert torch.tensor([tensor.isfinite().all() for tensor in find_run(tmp_path).tensors().values()]).all()
    for process in trainers:
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another project, of which nothing runs."""
    with Consortium(tmp_path_factory.mktemp("other") / "consortium", ["hospital-3"]) as other:
        yield other


def test_a_client_of_another_project_does_not_join(consortium, other):
    """It does not even trust our server."""
    kit = shutil.copytree(other.kit("hospital-3"), consortium.kit("hospital-3"))
    config = kit / "startup" / "fed_client.json"
    config.write_text(re.sub(r"localhost:\d+", f"localhost:{consortium.port}", config.read_text()))
    consortium.start("hospital-3", ready=False)
    consortium.await_log("hospital-3", "certificate verify failed: self-signed certificate in certificate chain")
    consortium.kill("hospital-3")
    clients = consortium.console("check_status server")
    assert "hospital-1" in clients and "hospital-3" not in clients


def answer(port, startup, authority):
    """The server's first bytes for somebody with a kit's certificate who trusts the server; none if it hangs up."""
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(startup / "client.crt", startup / "client.key")
    try:
        with (
            socket.create_connection(("localhost", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return secured.recv(12)
    except OSError:
        return b""


def test_the_server_hangs_up_on_a_certificate_of_another_project(consortium, other):
    ours, theirs = (made.kit(name) / "startup" for made, name in ((consortium, "hospital-1"), (other, "hospital-3")))
    assert answer(consortium.port, ours, ours / "rootCA.pem").startswith(b"HTTP/1.1 ")
    assert answer(consortium.port, theirs, ours / "rootCA.pem") == b""


def preflight(consortium, name):
    arguments = ["nvflare", "preflight-check", "-p", str(consortium.kit(name))]
    found = subprocess.run(
        arguments, env=consortium.environment("preflight"), capture_output=True, text=True, timeout=120
    )
    return found.returncode, found.stdout


def test_preflight_check_passes_on_a_servers_kit_before_it_runs(other):
    """FLARE then looks whether its port is free."""
    code, report = preflight(other, "server")
    assert code == 0 and report.count("| PASSED") == 5 and "overall: pass" in report, report


def test_preflight_check_passes_on_all_other_kits_once_the_server_runs(consortium):
    """Last, since it starts each kit, and two clients of one name would disturb each other."""
    for name in SITES:
        consortium.kill(name)
    for name in (*SITES, LEAD, ADMIN, IT):
        code, report = preflight(consortium, name)
        assert code == 0 and report.count("| PASSED") == 2 and "overall: pass" in report, report
    code, report = preflight(consortium, "server")
    assert code == 1 and report.count("Address already in use") == 2, report
