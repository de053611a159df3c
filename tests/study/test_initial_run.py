"""Every training of a comparison starts from the tensors of one finished run, and says so without a path."""

import json
import shutil

import pytest
import torch

from fedpeft.config.methods import METHODS
from fedpeft.flare.rendering import render
from fedpeft.models.initial import fingerprint_of
from fedpeft.study.plan.experiments import Plan
from fedpeft.study.run import compare as study
from fedpeft.study.run.compare import compare
from fedpeft.study.run.work import INITIAL_RUN, make_workspace
from fedpeft.training.server.run_folder import RunFolder
from fedpeft.training.server.start import read_start, train_alike

SETTINGS = ["local", "centralized"]


def quiet(progress, event):
    return None


@pytest.fixture(scope="module")
def started(two_sites, checkpoint, finished, run, tmp_path_factory):
    """A finished comparison that starts from a run of one site: plan and results."""
    from doubles import Here

    plan = Plan(two_sites, tmp_path_factory.mktemp("started"), checkpoint, seconds=1, initial_run=finished.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "ProcessPoolExecutor", Here)
        return plan, compare(plan, [run], SETTINGS, quiet)


def folders(plan):
    return [RunFolder(file.parent) for file in sorted(plan.out.rglob("run.json"))]


def test_every_run_records_where_it_started_by_fingerprint(started, finished):
    plan, _ = started
    expected = fingerprint_of(finished.tensors())
    found = [folder.description for folder in folders(plan)]
    assert [item["started_from"] for item in found] == [expected] * 3
    assert not any(str(finished.path) in json.dumps(item) for item in found)
    assert "started_from" not in finished.description


def test_the_first_model_is_the_other_runs(started, finished, compared):
    """The tested initial model, and what the sites validate before the first round."""
    (_, results), (_, plain) = started, compared
    initial, usual = (entry["runs"][0]["models"]["initial"] for entry in (results, plain))
    assert initial != usual
    trained = finished.rounds() and finished.path.joinpath("metrics.csv").read_text().splitlines()
    after = {line.split(",")[3]: line.split(",")[4] for line in trained if line.startswith("1,site-1,")}
    local = next(folder for folder in folders(started[0]) if folder.path.parent.name == "site-1")
    before = local.path.joinpath("metrics.csv").read_text().splitlines()
    assert {line.split(",")[3]: line.split(",")[4] for line in before if line.startswith("0,site-1,")} == after


def test_training_goes_on_from_there(started, finished, compared):
    """A second round's tensors differ from a first round's, and from where they started."""
    first, second = (
        next(folder.tensors() for folder in folders(plan) if folder.path.parent.name == "site-1")
        for plan in (compared[0], started[0])
    )
    begun = finished.tensors()
    assert not all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not all(torch.equal(tensor, second[name]) for name, tensor in begun.items())


@pytest.mark.parametrize("initial", [True, False])
def test_trainings_with_another_start_are_not_replaced(started, here, finished, run, tmp_path, initial, compared):
    """The same folder, started from elsewhere: neither way is a finished training replaced."""
    plan = started[0] if not initial else compared[0]
    other = Plan(plan.data, plan.out, plan.checkpoint, 1, initial_run=finished.path if initial else None)
    with pytest.raises(ValueError, match="trained with other initial_run"):
        compare(other, [run], SETTINGS, quiet)


def test_a_run_of_another_method_is_refused_before_anything_starts(two_sites, checkpoint, finished, run, tmp_path):
    plan = Plan(two_sites, tmp_path / "out", checkpoint, seconds=1, initial_run=finished.path)
    with pytest.raises(ValueError, match="dora cannot start from .*its method is 'flap_sam', here 'dora'"):
        compare(plan, [run, run.with_(method="dora")], SETTINGS, quiet)
    assert not (tmp_path / "out").exists()


def renamed(folder, method, out):
    """The same finished run under another method's name."""
    shutil.copytree(folder.path, out)
    content = json.loads((out / "run.json").read_text())
    content["run"]["model"]["method"] = method
    (out / "run.json").write_text(json.dumps(content))
    return RunFolder(out)


@pytest.mark.parametrize(("was", "now"), [("flap_sam", "flap_sam_random_b"), ("flap_sam_random_b", "flap_sam")])
def test_a_run_starts_from_a_method_that_differs_in_its_start_alone(checkpoint, finished, run, tmp_path, was, now):
    other = renamed(finished, was, tmp_path / "run")
    assert other.run.model.method == was
    start = read_start(other.path, run.with_(method=now), checkpoint)
    assert start.sha256 == fingerprint_of(finished.tensors())


def test_of_all_methods_only_those_with_another_start_train_alike(run):
    """No two others have the same network, tensors and averages, nor does a frozen part hide in a trained one."""
    runs = [run.with_(method=name) for name, entry in METHODS.items() if entry.suits(run.task)]
    alike = {
        (one.model.method, other.model.method) for one in runs for other in runs if one is not other
        and train_alike(one, other)
    }  # fmt: skip
    pairs = [(name, f"{name}_random_b") for name in ("flap_sam", "lora_ft", "lora_dec_ft")]
    assert alike == {*pairs, *((other, name) for name, other in pairs)}


def test_a_job_names_the_run_and_the_servers_site_file_has_its_path(two_sites, checkpoint, finished, run, tmp_path):
    from fedpeft.config.jobs import Job

    plan = Plan(two_sites, tmp_path / "out", checkpoint, seconds=1, initial_run=finished.path)
    workspace = make_workspace(tmp_path / "workspace", plan, run)
    values = json.loads((workspace / "local" / "fedpeft_site.json").read_text())
    assert values["initial_runs"] == {INITIAL_RUN: str(finished.path)}
    files = render(Job("named", run.config, initial_run=INITIAL_RUN))
    parts = files["app/config/config_fed_server.json"]["components"]
    assert next(part["args"] for part in parts if part["id"] == "persistor") == {"initial_run": INITIAL_RUN}
    assert "initial_run" not in json.dumps(files["app/config/config_fed_client.json"])
    assert "initial_run" not in json.dumps(render(Job("plain", run.config)))
