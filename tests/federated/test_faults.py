"""Faults in a real round: refused by name, and the round goes on; too few results stop the job and say why."""

import json

import pytest
import torch

from fedpeft.common.files import read_tensors
from fedpeft.config.jobs import Job
from fedpeft.config.run import make_run

RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, rounds=1, image_size=48)
ALLOWED = ["misbehaving.executor.MisbehavingExecutor", "misbehaving.controller.CollectingRounds"]


def misbehave(content):
    """Let the sites' executor misbehave, and take away the sites' own check, as such a site would."""
    if "executors" in content:
        content["executors"][0]["executor"]["path"] = ALLOWED[0]
        content["task_result_filters"] = []


def misbehave_and_submit(content):
    """The same, and ask for the sites' own models at the end."""
    misbehave(content)
    if "workflows" in content:
        content["workflows"][0]["path"] = ALLOWED[1]


@pytest.fixture(scope="module", autouse=True)
def importable(request):
    """FLARE's client processes must find the misbehaving package; nothing installs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(request.path.parent))
        yield


@pytest.fixture(scope="module")
def one_good_site(federation, tmp_path_factory):
    sites = ["good", "extra", "missing", "nan", "shape"]
    folder = tmp_path_factory.mktemp("faults")
    return federation(folder, Job("test", RUN, min_sites=1), sites, 5, misbehave_and_submit, ALLOWED)


def test_the_round_goes_on_with_the_good_site(one_good_site):
    _, folder = one_good_site
    assert folder.description["status"] == "finished"
    (record,) = folder.rounds()
    assert record["sites"].keys() == {"good"}
    assert record["sites"]["good"]["weight"] == 1
    assert all(tensor.isfinite().all() for tensor in folder.tensors().values())


def test_a_site_submits_its_own_trained_model(one_good_site):
    """The good site alone made the average, so what it submits is the global model; others were trained elsewhere."""
    _, folder = one_good_site
    submitted = {site: read_tensors(folder.path / f"submitted-{site}.safetensors") for site in ("good", "nan")}
    final = folder.tensors()
    assert submitted["good"].keys() == final.keys()
    means = [key for key in final if RUN.method.rule_of(key) == "mean"]
    assert all(torch.allclose(submitted["good"][key], final[key], atol=1e-6) for key in means)
    assert not all(torch.allclose(submitted["nan"][key], final[key], atol=1e-6) for key in means)


@pytest.mark.parametrize(
    ("site", "parts"),
    [
        ("nan", ["nan: ", "is not finite"]),
        ("shape", ["shape:", "(3, 4)", "expected ("]),
        ("missing", ["missing:", "is missing", "expected a tensor of shape ("]),
        ("extra", ["extra:", "image_encoder.pos_embed", "is extra"]),
    ],
)
def test_the_others_are_refused_with_site_key_and_shape(one_good_site, site, parts):
    workspace, folder = one_good_site
    reason = folder.rounds()[0]["refused"][site]
    assert all(part in reason for part in parts), reason
    assert reason in (workspace / "server" / "log.txt").read_text()


def test_too_few_results_stop_the_job_with_every_reason(federation, tmp_path):
    _, error = federation(tmp_path, Job("test", RUN, min_sites=2), ["good", "nan"], 2, misbehave, ALLOWED)
    assert isinstance(error, RuntimeError)
    assert "1 accepted results, 2 needed" in str(error) and "nan: " in str(error) and "not finite" in str(error)
    (description,) = tmp_path.rglob("run.json")
    assert json.loads(description.read_text())["status"].startswith("failed: ")


def test_a_job_that_would_start_processes_is_refused(federation, tmp_path):
    """FLARE's ClientAPIExecutor in external_process mode runs the command that the job brings."""
    marker = tmp_path / "executed"

    def external(content):
        if "executors" in content:
            content["executors"][0]["executor"] = {
                "path": "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor",
                "args": {"execution_mode": "external_process", "command": f"touch {marker}"},
            }

    workspace, error = federation(tmp_path, Job("test", RUN, min_sites=1), ["site-1"], 1, external)
    assert isinstance(error, RuntimeError | TimeoutError)
    assert not marker.exists()
    logs = "".join(file.read_text() for file in workspace.rglob("log*.txt")) + (tmp_path / "workspace.log").read_text()
    assert "ClientAPIExecutor" in logs and "allow" in logs.lower()
