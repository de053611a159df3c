"""A run starts from another run's tensors only where both have the same model."""

import pytest
import torch

from fedpeft.common.files import read_json, write_json
from fedpeft.config.run import make_run
from fedpeft.models.checkpoints.start import identity, own
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import trainable
from fedpeft.training.server.run_folder import DESCRIPTION, FINISHED, GLOBAL, RunFolder
from fedpeft.training.server.start import read_start

RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, image_size=32)


def finished(folder, run=RUN):
    """A run folder as training leaves it, its tensors moved by one."""
    from fedpeft.common.files import write_tensors

    model = build(run, own(run))
    out = RunFolder(folder)
    out.start(run, "local", identity(own(run)), fingerprint(model))
    write_tensors(folder / GLOBAL, {name: tensor + 1 for name, tensor in trainable(model).items()})
    out.finish(FINISHED)
    return out


def test_the_tensors_are_the_other_runs(tmp_path):
    folder = finished(tmp_path / "run")
    start = read_start(folder.path, RUN.with_(rounds=3, batch=1, dataset="folder", seed=5), own(RUN))
    assert start.tensors.keys() == trainable(build(RUN, None)).keys()
    assert all(torch.equal(tensor, folder.tensors()[name]) for name, tensor in start.tensors.items())
    other = finished(tmp_path / "other", RUN.with_(seed=1))
    assert start.sha256 != read_start(other.path, RUN, own(RUN)).sha256 and len(start.sha256) == 64


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"method": "dora"}, "its method is 'flap_sam', here 'dora'"),
        ({"rank": 4}, "its options is .*rank 8, .*here .*rank 4"),
        ({"classes": 1, "labels": None}, "its classes is 2, here 1"),
        ({"image_size": 64}, "its image_size is 32, here 64"),
        ({"initial": "random"}, "its initial is 'generic', here 'random'"),
    ],
)
def test_another_model_is_refused(tmp_path, fields, expected):
    folder = finished(tmp_path / "run")
    with pytest.raises(ValueError, match=f"cannot start from .*run: .*{expected}"):
        read_start(folder.path, RUN.with_(**fields), own(RUN))


def test_another_checkpoint_is_refused(tmp_path):
    folder = finished(tmp_path / "run")
    with pytest.raises(ValueError, match="its checkpoint is .*, here 'random'; both must be the same"):
        read_start(folder.path, RUN, None)


def test_an_unfinished_run_is_refused(tmp_path):
    folder = finished(tmp_path / "run")
    write_json(folder.path / DESCRIPTION, read_json(folder.path / DESCRIPTION) | {"status": "failed: no site"})
    with pytest.raises(ValueError, match=r"it has not finished \(failed: no site\)"):
        read_start(folder.path, RUN, own(RUN))


def test_the_seed_matters_where_a_random_tensor_stays_frozen(tmp_path):
    """lora_ft keeps the new output head as the seed made it; flap_sam trains it."""
    run = RUN.with_(method="lora_ft")
    folder = finished(tmp_path / "run", run)
    assert read_start(folder.path, run, own(run)).tensors
    with pytest.raises(ValueError, match="frozen tensors start at random with seed 0, here 1; use its seed"):
        read_start(folder.path, run.with_(seed=1), own(run))


def test_a_method_that_sends_some_blocks_alone_is_refused(tmp_path):
    run = make_run("sba", "images", "vit_tiny", classes=3, image_size=32)
    folder = finished(tmp_path / "run", run)
    with pytest.raises(ValueError, match="sites would not receive the others"):
        read_start(folder.path, run, own(run))


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_start(tmp_path, RUN, own(RUN))
