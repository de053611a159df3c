"""A federation's server optimiser: its state goes on bit for bit, and a site that trains alone has none."""

from dataclasses import replace

import pytest
import torch

from fedpeft.config.run import make_run
from fedpeft.config.strategies import SERVER_OPTIMISERS
from fedpeft.data.datalist import read_sites
from fedpeft.models.initial import build
from fedpeft.models.payload import payload, trainable
from fedpeft.training.server.continuation import RunStates
from fedpeft.training.server.in_process import train_in_process
from fedpeft.training.server.run_folder import MOMENTS, RunFolder
from fedpeft.training.server.server_round import ServerRound, SiteUpdate

MOVING = [name for name in SERVER_OPTIMISERS if name != "average"]


def updates(run, round_):
    g = torch.Generator().manual_seed(round_)
    shapes = payload(run, round_)
    report = {"cases": 2, "loss": 0.5, "dice": {"organ": 0.1 * round_}}
    return {
        site: SiteUpdate({path: 1e-2 * torch.randn(shape, generator=g) for path, shape in shapes.items()}, report)
        for site in "ab"
    }


def begun(run, setting="federated"):
    server = ServerRound(run, setting)
    return server, server.begin(trainable(build(run, None)))


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize("name", list(SERVER_OPTIMISERS))
def test_a_killed_server_goes_on_bit_for_bit_in_another_job(run, tmp_path, name, codec):
    run = run.with_(server_optimiser=name, codec=codec, rounds=4)
    server, state = begun(run)
    folder, states = RunFolder(tmp_path / "job" / "run"), RunStates(tmp_path / "kit").begin("A")
    folder.start(run, "federated", "checkpoint", "model")
    for round_ in range(4):
        before, (state, record) = state, server(state, updates(run, round_))
        folder.keep_round(before, state, record)
        if round_ == 1:
            states.keep("A", folder, 2)
    states.append("B")
    assert states.restore(tmp_path / "next")
    again = RunFolder(tmp_path / "next").state()
    assert again.rounds_done == 2 and (again.moments != {}) == (name != "average")
    assert (tmp_path / "next" / MOMENTS).is_file() == (name != "average")
    for round_ in (2, 3):
        again, _ = ServerRound(run)(again, updates(run, round_))
    for part in ("exact", "decoded", "moments"):
        assert same(getattr(again, part), getattr(state, part)), part
    assert again.best == state.best and same(RunFolder(folder.path).state().moments, state.moments)


@pytest.mark.parametrize("name", MOVING)
def test_a_round_changes_no_moment_of_the_state_that_entered_it(run, name):
    server, state = begun(run.with_(server_optimiser=name))
    state, _ = server(state, updates(run, 0))
    kept = {path: tensor.clone() for path, tensor in state.moments.items()}
    one, record = server(state, updates(run, 1))
    two, _ = server(state, dict(reversed(updates(run, 1).items())))
    assert same(state.moments, kept) and same(one.moments, two.moments) and same(one.exact, two.exact)
    assert record["step"].keys() == record["averaging"].keys()


@pytest.mark.parametrize("setting", ["local", "centralized"])
def test_a_site_that_trains_alone_moves_to_its_own_model(run, setting):
    plain, state = begun(run)
    other, alone = begun(run.with_(server_optimiser="nesterov"), setting)
    for round_ in range(2):
        answer = {"a": updates(run, round_)["a"]}
        (state, record), (alone, of_alone) = plain(state, answer), other(alone, answer)
        assert record == of_alone
    assert same(state.exact, alone.exact) and alone.moments == {}
    federated, moved = begun(run.with_(server_optimiser="nesterov"))
    for round_ in range(2):
        moved, _ = federated(moved, {"a": updates(run, round_)["a"]})
    assert not same(state.exact, moved.exact)


def test_the_setting_of_a_training_in_this_process_decides(small_phantom, run, tmp_path):
    sites, moving = read_sites(small_phantom)[:1], run.with_(server_optimiser="momentum", server_momentum=0.9)
    trained = {
        (setting, item.federation.server_optimiser): train_in_process(
            item, sites, None, tmp_path / f"{setting}-{item.federation.server_optimiser}", setting
        )
        for setting in ("local", "federated")
        for item in (run, moving)
    }
    assert same(trained["local", "average"].tensors(), trained["local", "momentum"].tensors())
    assert not same(trained["federated", "average"].tensors(), trained["federated", "momentum"].tensors())
    assert [key for key, folder in trained.items() if folder.state().moments] == [("federated", "momentum")]


@pytest.mark.parametrize("name", MOVING)
def test_tensors_of_blocks_that_a_round_leaves_out_stay_and_keep_their_velocity(name):
    run = make_run("sba", "images", "vit_tiny", classes=3, rounds=3, image_size=32, blocks=2, initial="random")
    run = run.with_(server_optimiser=name)
    server, state = begun(run)
    waited = 0
    for round_ in range(3):
        sent = updates(run, round_)
        report = {"cases": 2, "loss": 0.5, "recall": {}}
        after, _ = server(state, {site: replace(update, report=report) for site, update in sent.items()})
        trained = set(payload(run, round_))
        for path, tensor in state.exact.items():
            if path not in trained:
                assert torch.equal(after.exact[path], tensor)
                assert torch.equal(after.moments[f"velocity/{path}"], state.moments[f"velocity/{path}"])
                waited += bool(state.moments[f"velocity/{path}"].any())
            else:
                assert not torch.equal(after.exact[path], tensor)
        state = after
    assert waited


def test_a_run_whose_moments_were_lost_is_refused(run):
    server, state = begun(run.with_(server_optimiser="nesterov"))
    with pytest.raises(ValueError, match="moment 'velocity/.*' is missing; restore the run folder"):
        server(replace(state, moments={}), updates(run, 0))
