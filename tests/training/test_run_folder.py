"""The run folder: found, read back, and refused when it is not what it should be."""

import json
import shutil

import pytest
import torch

from fedpeft.common.files import read_tensors, sha256_of, write_tensors
from fedpeft.config.datasets import DATASETS
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.models.payload import trainable
from fedpeft.training.server.run_folder import BEST, DESCRIPTION, GLOBAL, ROUNDS, Progress, RunFolder, find_run
from fedpeft.training.server.selection import Best

LABELS = {0: "background", 1: "organ", 2: "lesion"}


@pytest.fixture
def tensors(run, checkpoint):
    return {key: p.detach() + 1 for key, p in trainable(build(run, checkpoint)).items()}


@pytest.fixture
def folder(run, checkpoint, tmp_path):
    made = RunFolder(tmp_path / "run")
    made.start(run, "local", sha256_of(checkpoint), "fingerprint")
    return made


def test_a_run_that_begins_is_described_as_running(folder, run):
    assert folder.description["status"] == "running"
    assert folder.description["rounds_done"] == 0
    assert folder.description["setting"] == "local"
    assert {"fedpeft", "python", "torch", "monai", "nvflare"} <= folder.description["versions"].keys()
    assert folder.run == run
    assert folder.run.label_table == LABELS
    assert folder.preprocessing.clip == (-3.0, 6.0)


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if row.task == "segmentation"])
def test_preprocessing_is_what_the_run_was_trained_with(run, tmp_path, name):
    made = RunFolder(tmp_path / "run")
    made.start(run.with_(dataset=name), "local", "", "")
    assert made.preprocessing == DATASETS[name].preprocessing


@pytest.mark.parametrize(
    "change", [lambda values: values.pop("preprocessing"), lambda values: values["preprocessing"].update(colour="red")]
)
def test_another_preprocessing_is_refused_and_its_file_named(folder, change):
    values = folder.description
    change(values)
    (folder.path / DESCRIPTION).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{DESCRIPTION} describes no preprocessing"):
        _ = folder.preprocessing


def test_a_folder_with_a_run_is_refused(folder, run):
    before = (folder.path / DESCRIPTION).read_text()
    with pytest.raises(FileExistsError, match="holds a run already"):
        folder.start(run.with_(seed=1), "local", "", "")
    assert (folder.path / DESCRIPTION).read_text() == before


def test_rounds_metrics_and_status_are_kept(folder, tensors):
    folder.metrics(0, "validation", {"site-2": {"organ": 0.75}, "site-1": {"organ": 0.25, "lesion": 1 / 3}})
    for round_ in range(2):
        folder.record(round_, {"seconds": 1.5}, {key: tensor + round_ for key, tensor in tensors.items()})
        folder.metrics(round_ + 1, "validation", {"site-1": {"organ": 0.5}})
    folder.finish("failed: lost")
    assert folder.rounds() == [{"round": 0, "seconds": 1.5}, {"round": 1, "seconds": 1.5}]
    assert folder.description["rounds_done"] == 2
    assert folder.description["status"] == "failed: lost"
    assert (folder.path / "metrics.csv").read_text().splitlines() == [
        "rounds,site,split,label,dice",
        "0,site-1,validation,organ,0.250000",
        "0,site-1,validation,lesion,0.333333",
        "0,site-2,validation,organ,0.750000",
        "1,site-1,validation,organ,0.500000",
        "2,site-1,validation,organ,0.500000",
    ]
    assert all(torch.equal(found, tensors[key] + 1) for key, found in folder.tensors().items())


def test_a_run_folder_of_version_1_is_still_read(request, tmp_path):
    """Its run.json is one that version 0.1.0 wrote."""
    shutil.copyfile(request.path.parent / "run_version_1.json", tmp_path / DESCRIPTION)
    folder = RunFolder(tmp_path)
    run = folder.run
    tensors = {key: p.detach() + 1 for key, p in trainable(build(run, None)).items()}
    write_tensors(tmp_path / GLOBAL, tensors)
    (tmp_path / ROUNDS).write_text("".join(f'{{"round": {number}, "sites": {{}}}}\n' for number in range(10)))
    assert (run.model.method, run.data.dataset, run.data.classes, run.federation.rounds) == (
        "flap_sam",
        "phantom",
        2,
        10,
    )
    assert run.label_table == LABELS and folder.preprocessing.clip == (-3.0, 6.0)
    assert folder.progress() == Progress("finished", 10, 10) and len(folder.rounds()) == 10
    state = folder.state()
    assert state.best == Best(10, 0.519132054100434) and state.exact is state.decoded
    assert all(torch.equal(found, tensors[key]) for key, found in state.decoded.items())
    assert folder.model(shipped(run.backbone)) is not None


def test_whoever_follows_a_run_reads_how_far_it_is(folder, tensors, run, tmp_path):
    assert RunFolder(tmp_path / "absent").progress() is None
    seen = [folder.progress()]
    assert folder.rounds() == []
    folder.record(0, {"seconds": 1.5}, tensors)
    seen.append(folder.progress())
    folder.finish("failed: lost")
    seen.append(folder.progress())
    assert seen == [
        Progress(*values, run.federation.rounds) for values in (("running", 0), ("running", 1), ("failed: lost", 1))
    ]
    assert [progress.ended for progress in seen] == [False, False, True]


def test_the_best_round_is_another_payload(folder, tensors):
    folder.keep_best(tensors, Best(1, 0.75))
    folder.record(1, {}, {key: tensor + 1 for key, tensor in tensors.items()})
    assert folder.description["best"] == {"rounds": 1, "validation_dice": 0.75}
    assert all(torch.equal(found, tensors[key]) for key, found in folder.tensors(BEST).items())
    assert all(torch.equal(found, tensors[key] + 1) for key, found in folder.tensors(GLOBAL).items())


def test_the_model_is_the_initial_one_with_the_payload_put_in(folder, tensors, run, checkpoint):
    folder.record(0, {}, tensors)
    found, initial = folder.model(checkpoint), build(run, checkpoint)
    assert not found.training
    frozen = set(initial.state_dict()) - set(tensors)
    assert all(torch.equal(found.state_dict()[key], tensor) for key, tensor in tensors.items())
    assert all(torch.equal(found.state_dict()[key], initial.state_dict()[key]) for key in frozen)


def test_another_checkpoint_is_refused_and_both_hashes_are_named(folder, tensors, checkpoint, tmp_path):
    folder.record(0, {}, tensors)
    given = read_tensors(checkpoint)
    write_tensors(tmp_path / "other.safetensors", {key: tensor + 1 for key, tensor in given.items()})
    with pytest.raises(ValueError, match=r"other\.safetensors") as refusal:
        folder.model(tmp_path / "other.safetensors")
    assert sha256_of(tmp_path / "other.safetensors") in str(refusal.value)
    assert sha256_of(checkpoint) in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t, key: t.pop(key), ["is missing"]),
        (lambda t, key: t.update(extra=torch.zeros(1)), ["'extra'"]),
        (lambda t, key: t.update({key: torch.zeros(1, 1)}), ["(1, 1)", "expected"]),
        (lambda t, key: t[key].view(-1)[:1].fill_(float("nan")), ["not finite"]),
    ],
)
def test_another_payload_is_refused_and_its_file_named(folder, tensors, change, parts):
    change(tensors, next(iter(tensors)))
    write_tensors(folder.path / GLOBAL, tensors)
    with pytest.raises(ValueError) as refusal:
        folder.tensors()
    assert all(part in str(refusal.value) for part in [str(folder.path / GLOBAL), *parts]), refusal.value


def test_a_truncated_payload_is_named(folder, tensors):
    write_tensors(folder.path / GLOBAL, tensors)
    content = (folder.path / GLOBAL).read_bytes()
    (folder.path / GLOBAL).write_bytes(content[:-100])
    with pytest.raises(ValueError, match=GLOBAL):
        folder.tensors()


@pytest.mark.parametrize("content", ["{}", '{"run": {}}', "[]", '{"run": {"method": "flap_sam", "colour": "red"}}'])
def test_a_run_json_of_something_else_is_named(tmp_path, content):
    (tmp_path / DESCRIPTION).write_text(content)
    with pytest.raises(ValueError, match=DESCRIPTION):
        _ = find_run(tmp_path).run


@pytest.mark.parametrize("given", [".", "..", "../.."])
def test_a_run_is_found_from_its_folder_or_a_parent(tmp_path, given):
    run = tmp_path / "workspace" / "server" / "run"
    run.mkdir(parents=True)
    (run / DESCRIPTION).write_text(json.dumps({}))
    assert find_run((run / given).resolve()).path == run


def test_none_or_several_runs_are_refused(tmp_path):
    for missing in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match=str(missing)):
            find_run(missing)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / DESCRIPTION).write_text("{}")
    with pytest.raises(ValueError, match=r"2 runs.*one.*two"):
        find_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found | {"version": 99}, "version is 99, expected 1 or 2"),
        (lambda found: {key: value for key, value in found.items() if key != "checkpoint"}, "'checkpoint' is missing"),
        (lambda found: [found], "version is None, expected 1 or 2"),
    ],
    ids=["of the future", "cut", "no object"],
)
def test_what_is_no_description_is_refused_in_one_line(run, tmp_path, change, said):
    folder = RunFolder(tmp_path)
    folder.start(run, "local", "", "")
    file = tmp_path / DESCRIPTION
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=rf"run\.json.*{said}"):
        _ = folder.model(None)
