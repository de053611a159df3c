"""What is checked before a comparison begins: each fault alone, several at once, and nothing written or started."""

import json
import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

import fedpeft
from fedpeft.common.faults import FaultError
from fedpeft.config.codecs import CODECS
from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_sites
from fedpeft.models.checkpoints import reading
from fedpeft.models.payload import roundtrip
from fedpeft.study.plan.experiments import Plan, experiments_of
from fedpeft.study.run import checks, disk, work
from fedpeft.study.run.compare import compare
from fedpeft.training.server.in_process import train_in_process

sys.path.insert(0, str(Path(__file__).parents[1]))
from disks import made_read_only, small_disk  # noqa: E402

CASE = Path("site-1", "case-01")


@pytest.fixture
def asked(two_sites, checkpoint, run, tmp_path):
    """A comparison that would begin: its data may be damaged, its parts replaced."""
    data = tmp_path / "data"
    shutil.copytree(two_sites, data)
    return SimpleNamespace(
        data=data, out=tmp_path / "parent" / "out", checkpoint=checkpoint, device="cpu", split="test", runs=[run],
        settings=["local", "federated"],
    )  # fmt: skip


@pytest.fixture
def begun(asked, here, monkeypatch):
    """A function that compares and gives the experiments that were trained."""

    def call():
        done = []
        monkeypatch.setattr(work, "train_in_process", lambda run, *rest: done.append(run) or pytest.fail("trained"))
        plan = Plan(asked.data, asked.out, asked.checkpoint, 1, asked.device, asked.split)
        before = sorted(asked.out.parent.rglob("*"))
        try:
            with pytest.raises(FaultError) as caught:
                compare(plan, asked.runs, asked.settings, lambda progress, event: None)
        finally:
            assert not done, "an experiment was started"
            assert sorted(asked.out.parent.rglob("*")) == before, "something was written"
        return caught.value.faults

    return call


def edit(asked, site, change):
    file = asked.data / site / "datalist.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def unlabelled(content, split):
    for entry in content[split]:
        del entry["label"]


def reshaped(asked):
    file = asked.data / CASE / "label.nii.gz"
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), image.affine), file)


def moved(asked):
    file = asked.data / CASE / "label.nii.gz"
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine + np.eye(4)), file)


def other_checkpoint(asked, name="other.pth"):
    asked.checkpoint = asked.data.parent / name
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 8)}, asked.checkpoint)


def truncated_checkpoint(asked):
    cut = asked.data.parent / "cut.safetensors"
    cut.write_bytes(asked.checkpoint.read_bytes()[:-5])
    asked.checkpoint = cut


def set_(**values):
    return lambda asked: vars(asked).update(values)


FAULTS = {
    "no checkpoint": (set_(checkpoint=Path("absent.pth")), "absent.pth does not exist; give its path"),
    "another checkpoint": (other_checkpoint, "other.pth does not fit backbone sam_tiny: 'image_encoder.pos_embed' has"),
    "truncated checkpoint": (truncated_checkpoint, "cut.safetensors is truncated or no checkpoint"),
    "unknown device": (set_(device="gpu"), "device 'gpu' is not known to torch"),
    "absent device": (set_(device="cuda:7"), "device 'cuda:7' asked for, but this machine shows"),
    "option of the device": (set_(device="cuda:7"), "correct --device (here are cpu"),
    "precision": (lambda asked: set_runs(asked, precision="bfloat16"), "precision 'bfloat16' asked for"),
    "classes": (lambda asked: set_runs(asked, classes=1, labels=("organ",)), "the run expects 1 classes"),
    "names": (lambda asked: set_runs(asked, labels=("lesion", "organ")), "the same number must mean the same class"),
    "task": (lambda asked: set_(runs=[IMAGES], checkpoint=None)(asked), "is for segmentation, the run is classific"),
    "weights": (lambda asked: set_runs(asked, site_weights={"site-1": 1.0}), "site-2: it has no weight; set are those"),
    "weight of no site": (
        lambda asked: set_runs(asked, site_weights={f"site-{n}": 1.0 for n in (1, 2, 9)}),
        "--site-weights: site-9 is no site of ",
    ),
    "no image": (lambda asked: (asked.data / CASE / "image.nii.gz").unlink(), "case-01/image.nii.gz: not found"),
    "no label file": (lambda asked: (asked.data / CASE / "label.nii.gz").unlink(), "case-01/label.nii.gz: not found"),
    "no NIfTI": (
        lambda asked: (asked.data / CASE / "image.nii.gz").write_bytes(b"text"),
        "case-01/image.nii.gz: cannot be read as NIfTI",
    ),
    "label of another shape": (reshaped, "label.nii.gz: shape is (4, 4, 4), its image"),
    "label elsewhere": (moved, "label.nii.gz: its affine differs from that of"),
    "no training case": (
        lambda asked: edit(asked, "site-2", lambda content: content.update(training=[])),
        "site site-2: no case for training in",
    ),
    "no test case": (
        lambda asked: edit(asked, "site-2", lambda content: content.update(test=[])),
        "site site-2: no case for test in",
    ),
    "training without label": (
        lambda asked: edit(asked, "site-1", lambda content: unlabelled(content, "training")),
        "site site-1: 2 cases (case-01, case-02) of training without a label; give each one in",
    ),
    "test without label": (
        lambda asked: edit(asked, "site-2", lambda content: unlabelled(content, "test")),
        "of test without a label; give each one in",
    ),
    "output is a file": (
        lambda asked: (asked.out.parent.mkdir(), asked.out.write_text("")),
        "out: cannot be written (Not a directory in",
    ),
    "output below a file": (lambda asked: asked.out.parent.write_text(""), "out: cannot be written (Not a directory"),
}
IMAGES = make_run("linear_probe", "images", "vit_tiny", classes=3, initial="random")


def set_runs(asked, **fields):
    asked.runs = [run.with_(**fields) for run in asked.runs]


@pytest.fixture(autouse=True)
def no_bfloat16(monkeypatch):
    monkeypatch.setattr("fedpeft.common.precision.native_bfloat16", lambda device: False)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_alone(asked, begun, name):
    damage, text = FAULTS[name]
    damage(asked)
    faults = begun()
    # A run of another task or other labels does not fit either site.
    assert len(faults) == (2 if name in ("classes", "names", "task") else 1), faults
    assert all(text in fault and "\n" not in fault for fault in faults), faults


def test_several_faults_are_named_at_once(asked, begun, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    names = ["no checkpoint", "absent device", "no image", "no training case", "test without label", "output is a file"]
    for name in names:
        FAULTS[name][0](asked)
    faults = begun()
    assert len(faults) == len(names) + 1, faults
    for name in names:
        assert sum(FAULTS[name][1] in fault for fault in faults) == 1, name
    assert sum("experiments keep about" in fault for fault in faults) == 1


def test_the_command_and_the_function_say_the_same_and_write_nothing(asked, monkeypatch, capsys):
    from fedpeft.cli.main import main

    (asked.data / CASE / "image.nii.gz").unlink()
    monkeypatch.setattr(work, "train_in_process", lambda *args: pytest.fail("trained"))
    options = ["--checkpoint", "absent.pth", "--settings", "local", "--device", "cuda:7"]
    assert main(["compare", "--data", str(asked.data), "--out", str(asked.out), *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fedpeft compare: the comparison cannot begin: 3 faults; nothing was written"
    with pytest.raises(FaultError) as caught:
        fedpeft.compare(asked.data, asked.out, settings=["local"], device="cuda:7", checkpoint="absent.pth")
    assert [line.strip() for line in lines[1:]] == list(caught.value.faults)
    assert not asked.out.parent.exists()


def test_a_checkpoint_is_read_once_for_all_runs_and_each_backbone_is_checked(asked, begun, monkeypatch):
    read = []
    monkeypatch.setattr(reading, "load_tensors", lambda *args, load=reading.load_tensors: read.append(1) or load(*args))
    asked.runs = [
        run.with_(method=name, seed=seed) for run in asked.runs for name in ("flap_sam", "dec_ft") for seed in (0, 1)
    ]
    asked.runs.append(make_run("flap_sam", "phantom", "sam_vit_b", classes=2, seed=7))
    (fault,) = begun()
    assert "does not fit backbone sam_vit_b" in fault and read == [1]


def test_a_method_that_does_not_fit_the_backbone_is_a_fault(small_images, asked, begun):
    set_(data=small_images, checkpoint=None, runs=[IMAGES.with_(method="vpt_shallow", backbone="sam_tiny")])(asked)
    (fault,) = begun()
    assert fault.startswith("vpt_shallow: ")


def test_images_are_looked_at_too(small_images, asked, begun):
    data = asked.data.parent / "images"
    shutil.copytree(small_images, data)
    set_(data=data, checkpoint=None, runs=[IMAGES])(asked)
    first, second = sorted((data / "site-2" / "images").iterdir())[:2]
    first.unlink()
    second.write_bytes(b"GIF89a")
    faults = begun()
    assert len(faults) == 2 and all("cannot be read as JPEG or PNG" in fault for fault in faults)


def test_many_faulty_cases_of_a_site_are_counted(small_images, asked, begun):
    data = asked.data.parent / "images"
    shutil.copytree(small_images, data)
    shutil.rmtree(data / "site-3" / "images")
    set_(data=data, checkpoint=None, runs=[IMAGES])(asked)
    faults = begun()
    assert len(faults) == checks.SHOWN + 1
    assert faults[-1] == f"site site-3: 16 more faulty cases; fedpeft data check {data} lists all"


def test_a_site_without_training_cases_is_in_order_where_all_sites_are_pooled(asked, begun):
    edit(asked, "site-2", lambda content: content.update(training=[]))
    sites = read_sites(asked.data)
    plan = Plan(asked.data, asked.out, asked.checkpoint, 1)
    assert checks.split_faults(plan, {"initial", "centralized"}, sites) == []
    assert checks.split_faults(plan, {"initial"}, sites) == []
    for settings in ({"local"}, {"initial", "federated"}, {"local", "centralized"}):
        assert len(checks.split_faults(plan, settings, sites)) == 1
    edit(asked, "site-1", lambda content: content.update(training=[]))
    assert len(checks.split_faults(plan, {"centralized"}, read_sites(asked.data))) == 1


def test_what_is_finished_is_not_checked_again(again, monkeypatch):
    _, once_more = again
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert once_more()[0] == []
    with pytest.raises(FaultError, match="0.0 MB free, 3 experiments"):
        once_more(settings=["local"], split="validation")


def test_a_full_or_read_only_disk_is_named(asked, begun, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as folder:
        asked.out = folder / "deep" / "out"
        (fault,) = begun()
        assert fault.startswith(f"{folder}: 0.1 MB free, 4 experiments keep about")
        with made_read_only(folder):
            faults = begun()
        assert len(faults) == 2 and "out: cannot be written (Read-only file system" in faults[0]


def files_below(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_estimate_of_what_is_kept_is_near_what_is_kept(compared, run):
    plan, _ = compared
    experiments = experiments_of([run], ["local", "centralized"], read_sites(plan.data))
    models, _ = checks.skeletons([run])
    kept, meanwhile = disk.needed(plan, experiments, read_sites(plan.data), models)
    tensors = kept - len(experiments) * disk.SMALL
    found = sum(file.stat().st_size for file in plan.out.rglob("*.safetensors"))
    assert 0.8 * tensors < found < 1.1 * tensors
    assert files_below(plan.out) < kept and meanwhile > 0


@pytest.mark.parametrize("codec", CODECS)
def test_the_estimate_of_what_a_site_keeps_meanwhile_is_near_it(run, small_phantom, checkpoint, tmp_path, codec):
    run = run.with_(rounds=3, codec=codec)
    seen = []

    def look(record):
        seen.append(files_below(tmp_path / "run.state") + files_below(tmp_path / "run"))

    sites = read_sites(small_phantom)[:1]
    train_in_process(run, sites, checkpoint, tmp_path / "run", "local", look)
    experiment = experiments_of([run], ["local"], sites)[1]
    kept, meanwhile = disk.needed(
        Plan(small_phantom, tmp_path, checkpoint, 1), [experiment], sites, checks.skeletons([run])[0]
    )
    estimate = kept - disk.SMALL + meanwhile
    assert len(seen) == 3
    # Two states and no draft between two rounds; three and a draft while they are written.
    assert 0.55 * estimate < max(seen) < estimate


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_is_exact_where_its_entry_says_so(codec):
    tensor = torch.randn(300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(roundtrip({"x": tensor}, codec)["x"], tensor) == CODECS[codec].exact


def test_a_federation_needs_the_space_of_all_its_sites_at_once(run, small_phantom, tmp_path):
    sites, (models, _) = read_sites(small_phantom), checks.skeletons([run])
    plan = Plan(small_phantom, tmp_path, None, 1, device="cuda:0")
    local, federated = (
        disk.needed(plan, experiments_of([run], [setting], sites), sites, models)[1]
        for setting in ("local", "federated")
    )
    # One training at a time on a GPU; a run folder's draft is needed once.
    assert federated / local == pytest.approx((1 + 3 * 9) / (1 + 9))
    many = Plan(small_phantom, tmp_path, None, 1)
    assert many.workers > 1
    assert disk.needed(many, experiments_of([run], ["local"], sites), sites, models)[1] == min(many.workers, 3) * local


def test_a_cache_without_space_is_a_warning(asked, run, monkeypatch, caplog):
    sites = read_sites(asked.data)
    experiments = experiments_of([run], ["local", "centralized"], sites)
    slices, faults = checks.header_faults(sites, [run])
    assert not faults and list(disk.cache_notes(experiments, sites, slices)) == []
    monkeypatch.setattr(disk, "MEMORY", 1000)
    assert list(disk.cache_notes(experiments, sites, slices)) == []
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: "/scratch")
    monkeypatch.setattr(
        disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=2000 if path == "/scratch" else 1e12)
    )
    with caplog.at_level(logging.WARNING):
        checks.refuse_faults(Plan(asked.data, asked.out, asked.checkpoint, 1), experiments, sites)
    (record,) = caplog.records
    assert "local site-1: its fitted images take" in record.message and "TMPDIR" in record.message
    # Every slice of the training and validation cases of the site, image and label.
    read = [nibabel.load(case.image).shape for split in ("training", "validation") for case in sites[0].splits[split]]
    assert f"take {sum(shape[2] for shape in read) * 5 * 32**2 / 1e6:,.1f} MB" in record.message
