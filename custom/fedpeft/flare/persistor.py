"""The server's model store: builds the initial model, writes the run folder. safetensors only, never a pickle."""

import time
import uuid
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.app_constant import AppConstants
from torch import Tensor

from fedpeft.config.run import Run
from fedpeft.flare.aggregator import RECORD
from fedpeft.flare.job_run import job_run
from fedpeft.flare.messages import META
from fedpeft.flare.round_line import MARK, final_line, round_line
from fedpeft.models.checkpoints.start import identity
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import decoded, trainable
from fedpeft.training.client.site_file import NAME, read_site_file
from fedpeft.training.server.continuation import RunState, RunStates
from fedpeft.training.server.run_folder import RunFolder
from fedpeft.training.server.selection import Selection

# What FLARE says when sites were lost and fewer than the job's min_clients are left.
TOO_FEW = "Aborting job due to deployment policy violation"


class RunFolderPersistor(ModelPersistor):
    """Loads the initial payload from the server's own checkpoint and keeps the run in ``app_server/run``.

    Where the server's kit has the component ``Continuation``, a run that another job began goes on after its last
    finished round, and every finished round is kept for the next job.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder: RunFolder | None = None
        self._state: RunState | None = None
        self._job = ""
        self._entered: dict[str, Tensor] = {}
        self._selection: Selection | None = None
        self._ended: str | None = None
        self._clock = 0.0

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """The initial payload or that after the last finished round, with the fingerprints that every site compares.

        Raises:
            RuntimeError: the run has gone on in another job meanwhile.
            ValueError: the run that this job continues began with another configuration, checkpoint or initial model.
        """
        run = job_run(fl_ctx).run
        workspace = fl_ctx.get_engine().get_workspace()
        site_file = read_site_file(Path(workspace.get_site_config_dir()) / NAME, fl_ctx.get_identity_name())
        checkpoint = site_file.checkpoint(run)
        model = build(run, checkpoint)
        self._job = fl_ctx.get_job_id()
        self._state = RunStates(Path(workspace.get_root_dir())).of(self._job)
        if self._state:
            self._state.claim(self._job)
        key = self._state.run_key if self._state else uuid.uuid4().hex
        meta = {"run_key": key, "checkpoint_sha256": identity(checkpoint), "model_sha256": fingerprint(model)}
        self._folder = RunFolder(Path(workspace.get_app_dir(self._job)) / "run")
        self._open(run, meta["checkpoint_sha256"], meta["model_sha256"])
        self._selection = Selection(self._folder, run.federation.patience)
        tensors = {key: tensor.detach().clone() for key, tensor in trainable(model).items()}
        exact = self._folder.exact() if self.rounds_done else tensors
        self._entered = decoded(run, exact, self.rounds_done)
        self._ended = f"stopped after {self.rounds_done} of {run.federation.rounds} rounds"
        torch.set_num_threads(site_file.threads)
        self._clock = time.monotonic()
        return make_model_learnable(exact, {META: meta})

    def _open(self, run: Run, checkpoint_sha256: str, model_sha256: str) -> None:
        """Describe a run that begins, or take up the one that this job continues."""
        if self._state and self._state.restore(self._folder.path):
            self._folder.expect(run, checkpoint_sha256, model_sha256)
        else:
            self._folder.start(run, "federated", checkpoint_sha256, model_sha256)
        if self._state:
            self._folder.continued(self._state.continued_after)
            self._state.note(self._job, "running")

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Write a finished round, and the model that entered it if it is the best validated one so far."""
        run, round_ = job_run(fl_ctx).run, fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        record = fl_ctx.get_prop(RECORD)
        now = time.monotonic()
        record |= {"seconds": now - self._clock}
        self._clock = now
        name = run.task.of_class
        scores = {site: item.get(name, {}) for site, item in record["sites"].items()}
        self._selection.validated(round_, scores, self._entered)
        exact = model[ModelLearnableKey.WEIGHTS]
        self._entered = decoded(run, exact, round_ + 1)
        self._folder.keep_exact(exact, self._entered)
        self._folder.record(round_, record, self._entered)
        self._ended = f"stopped after {round_ + 1} of {run.federation.rounds} rounds"
        if self._state:
            self._state.keep(self._job, self._folder, round_ + 1)
        self.log_info(fl_ctx, round_line(round_, run, record), fire_event=False)

    @property
    def rounds_done(self) -> int:
        """Finished rounds of the run, those of earlier jobs included."""
        return self._folder.description["rounds_done"]

    @property
    def awaited(self) -> bool:
        """Whether a site waits that only the run's next job can take in."""
        return self._state is not None and self._state.awaited

    def pause(self, fl_ctx: FLContext) -> None:
        """The job ends here, the run goes on in the next one."""
        run = job_run(fl_ctx).run
        self._ended = f"goes on in another job after {self.rounds_done} of {run.federation.rounds} rounds"
        self.log_info(fl_ctx, f"{MARK} {self._ended}: a site waits to enter", fire_event=False)

    @property
    def exhausted(self) -> bool:
        """Whether the run may end before its last round."""
        return self._selection is not None and self._selection.exhausted

    def conclude(
        self, rounds: int, metrics: dict[str, dict[str, Any]], refused: dict[str, str], fl_ctx: FLContext
    ) -> None:
        """Record the final model's validation, and that the run came to its end.

        Args:
            rounds: that were done.
            metrics: site -> its report, see ``messages.site_report``.
            refused: site -> why it did not validate.
            fl_ctx: FLARE's context.
        """
        run = job_run(fl_ctx).run
        scores = {site: report[run.task.of_class] for site, report in metrics.items()}
        self._selection.validated(rounds, scores, self._entered)
        self._finish("finished", validated=sorted(metrics), refused=refused)
        self._ended = None
        self.log_info(fl_ctx, final_line(rounds, run, scores, refused), fire_event=False)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keep run.json truthful when the run ends in another way; too few sites are a reason to go on later."""
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            reason = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
            self._ended = f"too few sites left, {self._ended}" if reason == TOO_FEW else f"failed: {reason}"
        elif event_type == EventType.END_RUN and self._folder is not None and self._ended is not None:
            self._finish(self._ended)

    def _finish(self, status: str, **more: Any) -> None:
        self._folder.finish(status, **more)
        if self._state:
            self._state.note(self._job, status)
