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

from fedpeft.algebra.codec import roundtrip
from fedpeft.flare.aggregator import RECORD
from fedpeft.flare.job_run import job_run
from fedpeft.flare.messages import META
from fedpeft.flare.round_line import final_line, round_line
from fedpeft.model.initial import build, digest
from fedpeft.model.parcel import download, trainable
from fedpeft.train.checkpoints import identity
from fedpeft.train.run_folder import RunFolder
from fedpeft.train.selection import Selection
from fedpeft.train.site_file import NAME, read_site_file


class RunFolderPersistor(ModelPersistor):
    """Loads the initial parcel from the server's own checkpoint and keeps the run in ``app_server/run``."""

    def __init__(self) -> None:
        super().__init__()
        self._folder: RunFolder | None = None
        self._entered: dict[str, Tensor] = {}
        self._selection: Selection | None = None
        self._ended: str | None = None
        self._clock = 0.0

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """The initial parcel, with the digests that every site compares with its own."""
        run = job_run(fl_ctx).run
        workspace = fl_ctx.get_engine().get_workspace()
        site_file = read_site_file(Path(workspace.get_site_config_dir()) / NAME, fl_ctx.get_identity_name())
        checkpoint = site_file.checkpoint(run)
        model = build(run, checkpoint)
        meta = {
            "run_key": uuid.uuid4().hex, "checkpoint_sha256": identity(checkpoint), "model_sha256": digest(model),
        }
        self._folder = RunFolder(Path(workspace.get_app_dir(fl_ctx.get_job_id())) / "run")
        self._folder.start(run, "federated", meta["checkpoint_sha256"], meta["model_sha256"])
        self._selection = Selection(self._folder, run.patience)
        tensors = {key: tensor.detach().clone() for key, tensor in trainable(model).items()}
        # What a site receives it knows as decoded, what it is not sent as built: the server keeps the same.
        self._entered = tensors | roundtrip({key: tensors[key] for key in download(run, 0)}, run.codec)
        self._ended = f"stopped after 0 of {run.rounds} rounds"
        torch.set_num_threads(site_file.threads)
        self._clock = time.monotonic()
        return make_model_learnable(dict(self._entered), {META: meta})

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Write a finished round, and the model that entered it if it is the best validated one so far."""
        run, round_ = job_run(fl_ctx).run, fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        record = fl_ctx.get_prop(RECORD)
        now = time.monotonic()
        record |= {"seconds": now - self._clock}
        self._clock = now
        name = run.task_row.of_class
        scores = {site: item.get(name, {}) for site, item in record["sites"].items()}
        self._selection.validated(round_, scores, self._entered)
        self._folder.record(round_, record, model[ModelLearnableKey.WEIGHTS])
        self._ended = f"stopped after {round_ + 1} of {run.rounds} rounds"
        self._entered = model[ModelLearnableKey.WEIGHTS]
        self.log_info(fl_ctx, round_line(round_, run, record), fire_event=False)

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
        scores = {site: report[run.task_row.of_class] for site, report in metrics.items()}
        self._selection.validated(rounds, scores, self._entered)
        self._folder.finish("finished", validated=sorted(metrics), refused=refused)
        self._ended = None
        self.log_info(fl_ctx, final_line(rounds, run, scores, refused), fire_event=False)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keep run.json truthful when the run ends in another way."""
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self._ended = f"failed: {fl_ctx.get_prop(FLContextKey.EVENT_DATA)}"
        elif event_type == EventType.END_RUN and self._folder is not None and self._ended is not None:
            self._folder.finish(self._ended)
