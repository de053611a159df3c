"""FLARE's ScatterAndGather with what a round of adapters needs: reasons for refusals, and a last validation."""

from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.dxo import DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.wf_comm_spec import WFCommSpec
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather

from fedpeft.flare.aggregator import AdapterAggregator
from fedpeft.flare.messages import content, is_ok, reason_of
from fedpeft.flare.persistor import RunFolderPersistor


class AdapterRounds(ScatterAndGather):
    """The rounds of a federation of adapters.

    ScatterAndGather counts answers and drops the reasons of refused ones; here they reach the aggregator, which stops
    the job when too few results were accepted. After the last round every site validates the final model.

    Args:
        num_rounds: rounds.
        min_sites: accepted results that a round needs.
        train_timeout: seconds after which a round goes on with the results it has.
        wait_time_after_min_received: seconds to wait for further sites once ``min_sites`` have answered.
        task_check_period: seconds between looks at the state of a task.
    """

    def __init__(
        self,
        num_rounds: int,
        min_sites: int,
        train_timeout: int,
        wait_time_after_min_received: int,
        task_check_period: float = 0.02,
    ) -> None:
        super().__init__(
            min_clients=min_sites,
            num_rounds=num_rounds,
            train_timeout=train_timeout,
            persistor_id="persistor",
            wait_time_after_min_received=wait_time_after_min_received,
            task_check_period=task_check_period,
            ignore_result_error=True,
            snapshot_every_n_rounds=0,
        )
        self._metrics: dict[str, dict[str, Any]] = {}
        self._refused: dict[str, str] = {}
        self._paused = False

    def set_communicator(self, communicator: WFCommSpec) -> None:
        """Take FLARE's half of the controller, and make it look at tasks as often as this one was told to.

        FLARE 2.9 sets ``task_check_period`` there, but its threads read ``_task_check_period`` and stay at 0.2 s.
        """
        super().set_communicator(communicator)
        communicator._task_check_period = self._task_check_period

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Load the model, and begin after the rounds that are done; our parts need one another."""
        super().start_controller(fl_ctx)
        for part, expected in ((self.aggregator, AdapterAggregator), (self.persistor, RunFolderPersistor)):
            if not isinstance(part, expected):
                self.system_panic(f"the job needs a {expected.__name__}, got {type(part).__name__}", fl_ctx)
                return
        self._current_round = self.persistor.rounds_done
        if self.persistor.exhausted:
            self._num_rounds = self._current_round

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """End the run with which the sites' validation has stopped to improve, or the job for which a site waits."""
        super().handle_event(event_type, fl_ctx)
        if event_type != AppEventType.ROUND_DONE:
            return
        done, exhausted = self._current_round + 1, self.persistor.exhausted
        self._paused = self.persistor.awaited and done < self._num_rounds and not exhausted
        if exhausted or self._paused:
            self._num_rounds = done

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """All rounds, then the validation of the final model; neither where the next job goes on."""
        super().control_flow(abort_signal, fl_ctx)
        if abort_signal.triggered or self._current_round != self._num_rounds:
            return
        if self._paused:
            self.persistor.pause(fl_ctx)
            return
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, self._current_round, private=True, sticky=True)
        data = self.shareable_gen.learnable_to_shareable(self._global_weights, fl_ctx)
        data.set_header(AppConstants.CURRENT_ROUND, self._current_round)
        task = Task(
            name=AppConstants.TASK_VALIDATION,
            data=data,
            timeout=self._train_timeout,
            result_received_cb=self._take_metrics,
        )
        self.broadcast_and_wait(
            task=task,
            fl_ctx=fl_ctx,
            min_responses=self._min_clients,
            abort_signal=abort_signal,
            wait_time_after_min_received=self._wait_time_after_min_received,
        )
        if not abort_signal.triggered:
            self.persistor.conclude(self._current_round, self._metrics, self._refused, fl_ctx)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """A late result: its round is over, and a difference to an old model must not enter a new one."""
        self.log_warning(fl_ctx, f"late result of {client.name} for task {task_name} dropped")

    def _accept_train_result(
        self, client_name: str, result: Shareable, fl_ctx: FLContext, is_unknown_task: bool = False
    ) -> bool:
        if not is_ok(result):
            reason = reason_of(result)
            prefix = "" if reason.startswith(f"{client_name}: ") else f"{client_name}: "
            self.aggregator.refuse(client_name, prefix + reason, fl_ctx)
            return False
        return super()._accept_train_result(client_name, result, fl_ctx, is_unknown_task)

    def _take_metrics(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        site, result = client_task.client.name, client_task.result
        client_task.result = None
        if not is_ok(result):
            self._refused[site] = reason_of(result)
            self.log_error(fl_ctx, f"validation of {site} refused: {self._refused[site]}")
            return
        self._metrics[site] = content(result, (DataKind.METRICS,)).data
