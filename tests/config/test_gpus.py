"""What a job asks of GPUs, as FLARE itself reads it, checks it and hands GPUs out."""

from dataclasses import replace

import pytest
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.resource_consumers import gpu_resource_consumer
from nvflare.app_common.resource_managers.gpu_resource_manager import GPUResourceManager
from nvflare.utils.job_launcher_utils import get_resource_manager_spec, validate_portable_resource_spec

from fedpeft.config.gpus import Gpus
from fedpeft.config.jobs import JOBS
from fedpeft.flare.rendering import render


def asked(gpus, site):
    """What FLARE's scheduler asks of a site for a job of ours."""
    meta = render(replace(JOBS["flap_sam_phantom"], gpus=gpus))["meta.json"]
    validate_portable_resource_spec(meta["resource_spec"])
    return get_resource_manager_spec(meta, site)


@pytest.mark.parametrize(
    ("gpus", "with_gpu", "without"),
    [
        (Gpus(), {}, {}),
        (Gpus(1), {"num_of_gpus": 1}, {"num_of_gpus": 1}),
        (Gpus(1, sites=("north",)), {"num_of_gpus": 1}, {}),
        (Gpus(1, 20, ("north",)), {"num_of_gpus": 1, "mem_per_gpu_in_GiB": 20}, {}),
    ],
)
def test_sites_are_asked_for_what_the_job_says(gpus, with_gpu, without):
    assert asked(gpus, "north") == with_gpu
    assert asked(gpus, "south") == without


def reserved(manager, gpus):
    """The GPUs that FLARE's manager gives a job at site north; None where it declines."""
    wanted, context = asked(gpus, "north"), FLContext()
    enough, token = manager.check_resources(wanted, context)
    return manager.allocate_resources(wanted, token, context) if enough else None


def test_jobs_get_gpus_of_their_own_until_none_is_free():
    manager = GPUResourceManager(num_of_gpus=2, mem_per_gpu_in_GiB=40, ignore_host=True)
    large = Gpus(1, 30, ("north",))
    assert [reserved(manager, large) for _ in range(3)] == [{0: 30}, {1: 30}, None]
    assert reserved(manager, Gpus(1, 10, ("north",))) == {0: 10}


def test_a_machine_without_gpus_declines_jobs_that_need_one_and_no_others():
    manager = GPUResourceManager(num_of_gpus=0, mem_per_gpu_in_GiB=0)
    assert reserved(manager, Gpus(1)) is None
    assert reserved(manager, Gpus()) == {}


def test_the_training_sees_its_gpu_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    monkeypatch.setattr(gpu_resource_consumer, "get_host_gpu_ids", lambda: [0, 1])
    monkeypatch.setattr(gpu_resource_consumer, "get_host_gpu_memory_free", lambda unit: [40960, 40960])
    gpu_resource_consumer.GPUResourceConsumer().consume({1: 30})
    assert gpu_resource_consumer.os.environ["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((2,), "expected 0 or 1.*second FLARE client"),
        ((1, -1.0), "expected 0 or more"),
        ((1, 20.0), "--gpu-sites"),
        ((0, 20.0, ("north",)), "--gpus 1"),
        ((0, 0.0, ("north",)), "--gpus 1"),
    ],
)
def test_what_flare_or_one_training_cannot_do_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Gpus(*values)
