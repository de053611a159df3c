"""Rounds that afterwards ask every site for its own model, which our own controller never does."""

from nvflare.apis.controller_spec import Task
from nvflare.apis.dxo import from_shareable
from nvflare.app_common.app_constant import AppConstants

from fedpeft.common.files import write_tensors
from fedpeft.flare.controller import AdapterRounds
from fedpeft.flare.messages import is_ok, task_data


class CollectingRounds(AdapterRounds):
    """Writes what a site answers to submit_model into the run folder, as ``submitted-<site>.safetensors``."""

    def control_flow(self, abort_signal, fl_ctx):
        super().control_flow(abort_signal, fl_ctx)
        data = task_data(self._server.download(self._state), self._persistor.identity, self._state.rounds_done)
        task = Task(name=AppConstants.TASK_SUBMIT_MODEL, data=data, timeout=60, result_received_cb=self._keep)
        self.broadcast_and_wait(task, fl_ctx, min_responses=1, wait_time_after_min_received=60)

    def _keep(self, client_task, fl_ctx):
        if is_ok(client_task.result):
            tensors = from_shareable(client_task.result).data
            write_tensors(self._persistor._folder.path / f"submitted-{client_task.client.name}.safetensors", tensors)
