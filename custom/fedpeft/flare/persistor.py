"""The server's persistor: it builds the initial model and writes the run folder, in safetensors, never pickles."""

import time
import uuid
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from torch.nn import Module

from fedpeft.flare.answers import Validations
from fedpeft.flare.internals import TOO_FEW_SITES
from fedpeft.flare.round_line import MARK, final_line, round_line
from fedpeft.models.checkpoints.start import identity
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import trainable
from fedpeft.training.client.site_file import NAME, SiteFile, read_site_file
from fedpeft.training.server.continuation import RunState, RunStates
from fedpeft.training.server.run_folder import FINISHED, RUNNING, RunFolder
from fedpeft.training.server.selection import scores_of
from fedpeft.training.server.server_round import Record, ServerRound, ServerState
from fedpeft.training.server.start import read_start


class RunFolderPersistor(FLComponent):
    """Loads the initial model from the server's own checkpoint and keeps the run in ``app_server/run``.

    If the server's kit has the component ``Continuation``, a run that an earlier job began goes on after its last
    finished round, and every finished round is kept for the next job.

    Args:
        initial_run: name in the server's site file of a finished run whose tensors the run starts from; "": the run
            starts from the initial model.

    Attributes:
        identity: name in ``filters.IDENTITY`` -> value, which every site compares with its own.
    """

    def __init__(self, initial_run: str = "") -> None:
        super().__init__()
        self._initial_run = initial_run
        self.identity: dict[str, str] = {}
        # ``load`` sets both.
        self._folder: RunFolder
        self._server: ServerRound
        self._run_state: RunState | None = None
        self._job = ""
        # The status in run.json if the job ended now; None before a run is loaded and after it has ended.
        self._ended: str | None = None
        self._clock = 0.0

    def load(self, server: ServerRound, fl_ctx: FLContext) -> ServerState:
        """The state before the first round, or after the last finished round of an earlier job.

        Args:
            server: the run's server round.
            fl_ctx: FLARE's context.

        Raises:
            RuntimeError: the run has gone on in another job meanwhile.
            ValueError: this job continues a run that began with another configuration, checkpoint or initial model, or
                the run that it starts from has another model.
        """
        workspace = fl_ctx.get_engine().get_workspace()
        site_file = read_site_file(Path(workspace.get_site_config_dir()) / NAME, fl_ctx.get_identity_name())
        checkpoint = site_file.checkpoint(server.run)
        model = build(server.run, checkpoint)
        self._job = fl_ctx.get_job_id()
        self._run_state = RunStates(Path(workspace.get_root_dir())).of(self._job)
        if self._run_state:
            self._run_state.claim(self._job)
        self.identity = {
            "run_key": self._run_state.run_key if self._run_state else uuid.uuid4().hex,
            "run_sha256": server.run.fingerprint,
            "checkpoint_sha256": identity(checkpoint),
            "model_sha256": fingerprint(model),
        }
        self._server, self._folder = server, RunFolder(Path(workspace.get_app_dir(self._job)) / "run")
        state = self._resumed() or self._begun(model, site_file, checkpoint)
        if self._run_state:
            self._folder.continued(self._run_state.continued_after)
            self._run_state.note(self._job, RUNNING)
        self._ended = self._after("stopped", state)
        torch.set_num_threads(site_file.threads)
        self._clock = time.monotonic()
        return state

    @property
    def awaited(self) -> bool:
        """Whether a site waits that only the run's next job can admit."""
        return self._run_state is not None and self._run_state.awaited

    def save(self, before: ServerState, after: ServerState, record: Record, fl_ctx: FLContext) -> None:
        """Write a finished round.

        Args:
            before: the state that entered the round; its model is kept if it is the best validated one so far.
            after: the state after it.
            record: the round's record, to which "seconds" is added.
            fl_ctx: FLARE's context.

        Raises:
            RuntimeError: the run has gone on in another job meanwhile.
        """
        now = time.monotonic()
        record, self._clock = record | {"seconds": now - self._clock}, now
        self._folder.keep_round(before, after, record)
        self._ended = self._after("stopped", after)
        if self._run_state:
            self._run_state.keep(self._job, self._folder, after.rounds_done)
        self.log_info(fl_ctx, round_line(before.rounds_done, self._server.run, record), fire_event=False)

    def pause(self, state: ServerState, fl_ctx: FLContext) -> None:
        """Record that this job ends and the run goes on in the next one."""
        self._ended = self._after("goes on in another job", state)
        self.log_info(fl_ctx, f"{MARK} {self._ended}: a site waits to enter", fire_event=False)

    def conclude(self, state: ServerState, validations: Validations, fl_ctx: FLContext) -> None:
        """Record the final model's validation, and that the run has finished.

        Args:
            state: the last state, this validation included.
            validations: the sites' answers.
            fl_ctx: FLARE's context.
        """
        scores, refused = scores_of(self._server.run, validations.accepted), validations.refused
        self._folder.keep_validation(state, state.best, scores)
        self._finish(FINISHED, validated=sorted(scores), refused=refused)
        self.log_info(fl_ctx, final_line(state.rounds_done, self._server.run, scores, refused), fire_event=False)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Record in run.json how a run ended that did not finish; a run with too few sites left may go on later."""
        if self._ended is None:
            return
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            reason = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
            too_few = reason == TOO_FEW_SITES
            self._ended = f"too few sites left, {self._ended}" if too_few else f"failed: {reason}"
        elif event_type == EventType.END_RUN:
            self._finish(self._ended)

    def _resumed(self) -> ServerState | None:
        """The state of the run that this job continues, or None if no round of it was finished."""
        if self._run_state is None or not self._run_state.restore(self._folder.path):
            return None
        self._ended = "stopped before it went on"
        self._folder.expect(self._server.run, self.identity["checkpoint_sha256"], self.identity["model_sha256"])
        return self._folder.state()

    def _begun(self, model: Module, site_file: SiteFile, checkpoint: Path | None) -> ServerState:
        """Begin a run; return its first state."""
        run, found, name = self._server.run, self.identity, self._initial_run
        start = read_start(site_file.initial_run(name), run, checkpoint) if name else None
        started = start.sha256 if start else None
        self._folder.start(run, "federated", found["checkpoint_sha256"], found["model_sha256"], started)
        return self._server.begin(start.tensors if start else trainable(model))

    def _after(self, what: str, state: ServerState) -> str:
        return f"{what} after {state.rounds_done} of {self._server.run.federation.rounds} rounds"

    def _finish(self, status: str, **more: Any) -> None:
        self._folder.finish(status, **more)
        if self._run_state:
            self._run_state.note(self._job, status)
        self._ended = None
