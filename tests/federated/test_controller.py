"""The controller's own part: how often FLARE looks whether a round's task is done."""

from types import SimpleNamespace

from nvflare.apis.controller_spec import Task
from nvflare.apis.impl import wf_comm_server
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fedpeft.flare.controller import AdapterRounds


def test_flare_looks_at_a_task_as_often_as_the_job_says(monkeypatch):
    communicator, task, waited = wf_comm_server.WFCommServer(), Task("train", Shareable()), []

    def sleep(seconds):
        waited.append(seconds)
        task.props[wf_comm_server._TASK_KEY_DONE] = True

    AdapterRounds(1, 1, 0, 0, task_check_period=0.015).set_communicator(communicator)
    # The module's own name for it: threads of other tests go on sleeping for real.
    monkeypatch.setattr(wf_comm_server, "time", SimpleNamespace(sleep=sleep))
    communicator.wait_for_task(task, Signal())
    assert waited == [0.015]
