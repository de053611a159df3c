"""Run the rounds of a federation on FLARE's public controller: ask the sites, and decide when the run is over.

FLARE's own ScatterAndGather fixes the number of rounds beforehand, drops the reasons of refused results and does not
validate the final model. The aggregator collects and averages the sites' updates.
"""

from collections.abc import Callable
from functools import partial

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.wf_comm_spec import WFCommSpec
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils.memory_utils import cleanup_memory
from nvflare.security.logging import secure_format_exception
from nvflare.widgets.info_collector import InfoCollector

from fedpeft.flare.aggregator import AdapterAggregator
from fedpeft.flare.answers import Validations
from fedpeft.flare.internals import check_tasks_every
from fedpeft.flare.job_run import JobRun, job_run
from fedpeft.flare.messages import task_data
from fedpeft.flare.persistor import RunFolderPersistor
from fedpeft.training.server.selection import scores_of
from fedpeft.training.server.server_round import ServerRound, ServerState
from fedpeft.training.server.weighting import check_sites

# Takes (site, its answer, FLARE's context).
Take = Callable[[str, Shareable, FLContext], object]


class AdapterRounds(Controller):
    """Runs all rounds, then the validation of the final model at every site.

    A site's result is accepted, or refused with a reason that is logged and recorded. A round with fewer accepted
    results than ``min_sites`` stops the job with the reasons. Results that arrive after their round are dropped.

    Args:
        min_sites: number of accepted results that a round needs.
        train_timeout: seconds after which a round goes on with the results it has.
        wait_time_after_min_received: seconds to wait for further sites once ``min_sites`` have answered.
        task_check_period: seconds between two checks of a task's state.
    """

    def __init__(
        self,
        min_sites: int,
        train_timeout: int,
        wait_time_after_min_received: int,
        task_check_period: float = 0.02,
    ) -> None:
        super().__init__(task_check_period=task_check_period)
        self._min_sites = min_sites
        self._train_timeout = train_timeout
        self._straggler_seconds = wait_time_after_min_received
        self._check_seconds = task_check_period
        self._phase = AppConstants.PHASE_INIT
        # Set when the controller starts, from the job's other components.
        self._job: JobRun
        self._persistor: RunFolderPersistor
        self._aggregator: AdapterAggregator
        self._server: ServerRound
        self._state: ServerState | None = None

    def set_communicator(self, communicator: WFCommSpec) -> None:
        """Take FLARE's communicator, and let it check tasks every ``task_check_period`` seconds."""
        super().set_communicator(communicator)
        check_tasks_every(communicator, self._check_seconds)

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Load the state from which the run begins or goes on."""
        persistor, aggregator = (fl_ctx.get_engine().get_component(name) for name in ("persistor", "aggregator"))
        for part, wanted in ((persistor, RunFolderPersistor), (aggregator, AdapterAggregator)):
            if not isinstance(part, wanted):
                self.system_panic(f"the job needs a component {wanted.__name__}, got {type(part).__name__}", fl_ctx)
                return
        self._job, self._persistor, self._aggregator = job_run(fl_ctx), persistor, aggregator
        self._server = ServerRound(self._job.run)
        self._state = persistor.load(self._server, fl_ctx)
        self._announce(AppEventType.INITIAL_MODEL_LOADED, self._state, fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Run the rounds; then validate the final model, unless the job was aborted or another continues the run."""
        if abort_signal.triggered or self._state is None:
            return
        try:
            self._phase = AppConstants.PHASE_TRAIN
            self._announce(AppEventType.TRAINING_STARTED, self._state, fl_ctx)
            state, awaited = self._rounds(self._state, abort_signal, fl_ctx)
            self._phase = AppConstants.PHASE_FINISHED
            if abort_signal.triggered:
                self.log_info(fl_ctx, f"Aborted in round {state.rounds_done}.")
            elif awaited:
                self._persistor.pause(state, fl_ctx)
            else:
                self._validate(state, abort_signal, fl_ctx)
        except Exception as fault:
            reason = secure_format_exception(fault)
            self.log_exception(fl_ctx, reason)
            self.system_panic(reason, fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Mark the job as finished; FLARE has already ended its tasks."""
        self._phase = AppConstants.PHASE_FINISHED

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Report the job's progress when FLARE asks for its statistics."""
        super().handle_event(event_type, fl_ctx)
        collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
        if event_type == InfoCollector.EVENT_TYPE_GET_STATS and collector and self._state is not None:
            done = self._state.rounds_done
            # A job may end before the run's last round, and is then complete all the same.
            rounds = done if self._phase == AppConstants.PHASE_FINISHED else self._server.run.federation.rounds
            progress = {"phase": self._phase, "current_round": done, "num_rounds": rounds}
            collector.add_info(group_name=self.name, info=progress)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Drop a late result: its round is over, and an update to an old model must not enter a new one."""
        self.log_warning(fl_ctx, f"late result of {client.name} for task {task_name} dropped")

    def _rounds(self, state: ServerState, abort_signal: Signal, fl_ctx: FLContext) -> tuple[ServerState, bool]:
        """Run the job's rounds; return the last state, and whether a site waits that only the next job can admit."""
        awaited = False
        while not (self._server.is_over(state) or awaited or abort_signal.triggered):
            state = self._state = self._round(state, abort_signal, fl_ctx)
            # Nothing refers to the updates of the round any more.
            cleanup_memory()
            awaited = self._persistor.awaited and not self._server.is_over(state)
        return state, awaited

    def _round(self, before: ServerState, abort_signal: Signal, fl_ctx: FLContext) -> ServerState:
        """Run one round: the sites train, the server computes the new state, the run folder is written.

        Raises:
            RuntimeError: too few results were accepted.
            ValueError: a site has no weight.
        """
        check_sites(self._server.run, [client.name for client in fl_ctx.get_engine().get_clients()])
        round_ = before.rounds_done
        self.log_info(fl_ctx, f"Round {round_} started.")
        self._announce(AppEventType.ROUND_STARTED, before, fl_ctx)
        self._aggregator.begin(self._server, before, self._job)
        self._ask(AppConstants.TASK_TRAIN, before, self._aggregator.take, abort_signal, fl_ctx)
        if abort_signal.triggered:
            return before
        self.fire_event(AppEventType.BEFORE_AGGREGATION, fl_ctx)
        self._aggregator.aggregate(fl_ctx)
        self.fire_event(AppEventType.AFTER_AGGREGATION, fl_ctx)
        after = self._aggregator.after
        self.fire_event(AppEventType.BEFORE_LEARNABLE_PERSIST, fl_ctx)
        self._persistor.save(before, after, self._aggregator.record, fl_ctx)
        self._aggregator.reset(fl_ctx)
        self.fire_event(AppEventType.AFTER_LEARNABLE_PERSIST, fl_ctx)
        self.fire_event(AppEventType.ROUND_DONE, fl_ctx)
        self.log_info(fl_ctx, f"Round {round_} finished.")
        return after

    def _validate(self, state: ServerState, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Let every site validate the final model, and finish the run."""
        answers = Validations(self._job, state.rounds_done)

        def take(site: str, answer: Shareable, fl_ctx: FLContext) -> None:
            if refused := answers.take(site, answer):
                self.log_error(fl_ctx, f"result refused: {refused}")

        self._ask(AppConstants.TASK_VALIDATION, state, take, abort_signal, fl_ctx)
        if not abort_signal.triggered:
            after = self._server.validated(state, scores_of(self._job.run, answers.accepted))
            self._persistor.conclude(after, answers, fl_ctx)

    def _ask(self, task: str, state: ServerState, take: Take, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Send a state's download to the sites, and take their answers until the task is over."""
        data = task_data(self._server.download(state), self._persistor.identity, state.rounds_done)
        self.broadcast_and_wait(
            task=Task(
                name=task, data=data, timeout=self._train_timeout, result_received_cb=partial(self._received, take)
            ),
            fl_ctx=fl_ctx,
            min_responses=self._min_sites,
            wait_time_after_min_received=self._straggler_seconds,
            abort_signal=abort_signal,
        )

    def _received(self, take: Take, client_task: ClientTask, fl_ctx: FLContext) -> None:
        self.fire_event(AppEventType.BEFORE_CONTRIBUTION_ACCEPT, fl_ctx)
        take(client_task.client.name, client_task.result, fl_ctx)
        client_task.result = None
        self.fire_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, fl_ctx)

    def _announce(self, event: str, state: ServerState, fl_ctx: FLContext) -> None:
        """Fire one of FLARE's events, with the round in the properties that FLARE's own listeners read."""
        fl_ctx.set_prop(AppConstants.NUM_ROUNDS, self._server.run.federation.rounds, private=True, sticky=False)
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, state.rounds_done, private=True, sticky=True)
        self.fire_event(event, fl_ctx)
