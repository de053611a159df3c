"""The server starts from a finished run's tensors; sites accept them, since their own initial model is unchanged."""

import pytest
import torch
from exchange import Engine, context, travel
from nvflare.apis.dxo import from_shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fedpeft.common.files import read_json, write_json, write_tensors
from fedpeft.config.run import make_run
from fedpeft.flare.executor import SiteExecutor
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import is_ok, reason_of, task_data
from fedpeft.flare.persistor import RunFolderPersistor
from fedpeft.models.checkpoints.start import identity, own
from fedpeft.models.initial import build, fingerprint, fingerprint_of
from fedpeft.models.payload import trainable
from fedpeft.training.client.site_file import register
from fedpeft.training.server.run_folder import FINISHED, GLOBAL, RunFolder
from fedpeft.training.server.server_round import ServerRound

RUN = make_run("flap_sam", "phantom", "sam_tiny", classes=2, image_size=32, rounds=1, batch=2)


@pytest.fixture
def begun(small_phantom, tmp_path):
    """A server that has begun a run, and a site: engine, site file, the finished run, its tensors."""
    model = build(RUN, own(RUN))
    tensors = {name: tensor.detach() * 1.5 for name, tensor in trainable(model).items()}
    folder = RunFolder(tmp_path / "finished")
    folder.start(RUN, "imported", identity(own(RUN)), fingerprint(model))
    write_tensors(folder.path / GLOBAL, tensors)
    folder.finish(FINISHED)
    site_file = register(tmp_path / "workspace", "phantom", small_phantom)
    write_json(site_file, read_json(site_file) | {"initial_runs": {"kits": str(folder.path)}})
    return Engine(JobRun(RUN.to_dict()), site_file.parent, tmp_path / "app"), tensors


def test_server_and_site_start_from_the_run(begun, tmp_path):
    engine, tensors = begun
    server, site = context(engine, "server", "site-1"), context(engine, "site-1", "server")
    persistor, server_round = RunFolderPersistor("kits"), ServerRound(RUN)
    state = persistor.load(server_round, server)
    assert all(torch.equal(state.exact[name], tensor) for name, tensor in tensors.items())
    received, _ = travel(task_data(server_round.download(state), persistor.identity, 0), server, site)
    executor = SiteExecutor()
    answer = executor.execute(AppConstants.TASK_TRAIN, received, site, Signal())
    assert is_ok(answer), reason_of(answer)
    update, trained = from_shareable(answer).data, executor._trainer.parameters
    for name, tensor in tensors.items():
        assert torch.equal(trained[name].detach() - tensor, update[name]), name
    description = RunFolder(tmp_path / "app" / "run").description
    assert description["started_from"] == fingerprint_of(tensors)
    assert description["model_sha256"] == persistor.identity["model_sha256"] == fingerprint(build(RUN, own(RUN)))


def test_an_unknown_name_is_refused_with_those_that_are_known(begun):
    engine, _ = begun
    with pytest.raises(ValueError, match="no run 'lungs' under \"initial_runs\" \\(there: kits\\)"):
        RunFolderPersistor("lungs").load(ServerRound(RUN), context(engine, "server", "site-1"))


def test_a_job_that_names_none_starts_from_the_initial_model(begun):
    engine, tensors = begun
    state = RunFolderPersistor().load(ServerRound(RUN), context(engine, "server", "site-1"))
    assert not any(torch.equal(state.exact[name], tensor) for name, tensor in tensors.items() if tensor.any())
