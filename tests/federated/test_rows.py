"""Every row through the same executor, filters and aggregator, in one process and through FLARE's serialisation."""

import pytest
import torch
from exchange import Engine, context, travel
from nvflare.apis.dxo import from_shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants

from fedpeft.config.methods import METHODS, method
from fedpeft.config.run import make_run
from fedpeft.flare.aggregator import RECORD, AdapterAggregator
from fedpeft.flare.executor import SiteExecutor
from fedpeft.flare.filters import declared_bytes
from fedpeft.flare.generator import PayloadGenerator
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import is_ok, reason_of
from fedpeft.flare.persistor import RunFolderPersistor
from fedpeft.models.checkpoints.start import own
from fedpeft.models.initial import build
from fedpeft.models.payload import payload, trainable, whole
from fedpeft.training.client.site_file import register

# What no mask depends on: the quality head, and prompts that are not given. The published counts include them.
WITHOUT_GRADIENT = (
    "mask_decoder.iou_prediction_head.",
    "prompt_encoder.point_embeddings.",
    "prompt_encoder.not_a_point_embed.",
    "prompt_encoder.mask_downscaling.",
)


class Round:
    """One round with one site: what entered it, what the site sent, what the server made of it."""

    def __init__(self, run, data, folder):
        site_file = register(folder / "workspace", run.data.dataset, data)
        engine = Engine(JobRun(run.to_dict()), site_file.parent, folder / "app")
        server, site = context(engine, "server", "site-1"), context(engine, "site-1", "server")
        persistor, aggregator, executor = RunFolderPersistor(), AdapterAggregator(), SiteExecutor()
        learnable = persistor.load_model(server)
        self.before = {key: value.clone() for key, value in learnable[ModelLearnableKey.WEIGHTS].items()}
        server.set_prop(AppConstants.GLOBAL_MODEL, learnable, private=True, sticky=True)
        task = PayloadGenerator().learnable_to_shareable(learnable, server)
        task.set_header(AppConstants.CURRENT_ROUND, 0)
        received, self.down = travel(task, server, site)
        answer = executor.execute(AppConstants.TASK_TRAIN, received, site, Signal())
        assert is_ok(answer), reason_of(answer)
        self.model = executor._trainer.model
        result, self.up = travel(answer, site, server)
        self.difference = from_shareable(result).data
        aggregator.reset(server)
        assert aggregator.accept(result, server)
        self.after = from_shareable(aggregator.aggregate(server)).data
        self.record = server.get_prop(RECORD)


ROWS = [(task, name) for name, row in METHODS.items() for task in row.tasks]


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: "-".join(row))
def played(request, small_phantom, small_pictures, tmp_path_factory):
    task, name = request.param
    small = {"side": 32, "rounds": 1, "batch": 2}
    if task == "segmentation":
        run, data = make_run(name, "phantom", "sam_tiny", classes=2, **small), small_phantom
    else:
        run, data = make_run(name, "images", "vit_tiny", classes=3, initial="random", **small), small_pictures
    return run, Round(run, data, tmp_path_factory.mktemp(name))


def test_the_payload_is_the_declared_one(played):
    run, round_ = played
    declared = payload(run)
    for tensors, expected in ((round_.before, whole(run)), (round_.difference, declared), (round_.after, declared)):
        assert {key: tuple(value.shape) for key, value in tensors.items()} == expected
    assert round_.up == round_.down == declared_bytes(declared, "float32")


def test_what_is_declared_moves_and_all_else_is_bit_identical(played):
    run, round_ = played
    still = {key for key, value in round_.difference.items() if not value.any()}
    assert still == {key for key in round_.difference if key.startswith(WITHOUT_GRADIENT)}
    initial, trained = build(run, own(run)).state_dict(), round_.model.state_dict()
    moved = {key for key in initial if not torch.equal(initial[key], trained[key])}
    assert moved == round_.difference.keys() - still


def effective(tensors, rule_of):
    """What the network sees: products instead of factors, everything else as it is; float64."""
    seen = {}
    for key, value in tensors.items():
        module, _, leaf = key.rpartition(".")
        rule = rule_of(key)
        if rule == "mean":
            seen[key] = value.double()
        elif rule == "product" and leaf == "A":
            seen[module] = tensors[f"{module}.B"].double() @ value.double()
        elif rule in ("tensor_train", "tucker") and leaf == "U":
            if rule == "tensor_train":
                core = tensors[f"{module}.S"].double()
            else:
                core = torch.einsum("abk,kl->lab", tensors[f"{module}.C"].double(), tensors[f"{module}.P"].double())
            seen[module] = tensors[f"{module}.V"].double() @ core @ value.double()
    return seen


def test_one_site_alone_gets_its_own_training_back(played):
    run, round_ = played
    rule_of = method(run.model.method).rule_of
    local = {key: round_.before[key].double() + value.double() for key, value in round_.difference.items()}
    expected, found = effective(local, rule_of), effective(round_.after, rule_of)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key] - value).norm() <= 1e-6 * value.norm(), key


def test_the_round_reports_the_fit_of_what_is_refactored(played):
    run, round_ = played
    groups = {key.rpartition(".")[0] for key in round_.difference if method(run.model.method).rule_of(key) != "mean"}
    assert round_.record["averaging"].keys() == groups
    for report in round_.record["averaging"].values():
        assert 0 <= report["truncation_error"] <= 1e-5 and report["energy_kept"] > 1 - 1e-9


def test_the_mean_of_a_site_alone_is_exact(played):
    run, round_ = played
    for key, value in round_.after.items():
        if method(run.model.method).rule_of(key) == "mean":
            assert torch.equal(value, (round_.before[key].double() + round_.difference[key].double()).float()), key


def test_the_round_began_with_the_sites_own_initial_model(played):
    run, round_ = played
    initial = trainable(build(run, own(run)))
    assert all(torch.equal(value, initial[key]) for key, value in round_.before.items())
