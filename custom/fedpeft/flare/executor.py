"""The executor at a site: it answers FLARE's tasks with tensors and numbers that ``fedpeft.training`` computes."""

import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fedpeft.data.datalist import read_site
from fedpeft.flare.filters import declared_bytes
from fedpeft.flare.job_run import JobRun, job_run
from fedpeft.flare.messages import META, content, is_ok, meta_of, refusal, round_of
from fedpeft.models.checkpoints.start import identity
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import check
from fedpeft.tasks.scores import class_means
from fedpeft.tasks.types import Stopped
from fedpeft.training.client.global_tensors import StaleSiteError
from fedpeft.training.client.site_cache import site_cache
from fedpeft.training.client.site_file import NAME, RUN_KEY, SiteFile, read_site_file, run_state
from fedpeft.training.client.trainer import SiteTrainer
from fedpeft.training.engine.acceleration import checkpoint_activations, compile_forward


class Refused(Exception):
    """The site declines the task; the message may leave the site, so it names none of its files."""


class SiteExecutor(Executor):
    """Serves the tasks train, validate and submit_model.

    A site that declines a task (another payload, another initial model, a method that it does not permit) answers with
    the reason. The message of a fault in its own files may name patients, so it stays in the site's log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trainer: SiteTrainer | None = None
        self._fingerprints: dict[str, str] = {}
        self._signal = Signal()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Do one task; FLARE's abort signal stops it before the next step."""
        tasks = {
            AppConstants.TASK_TRAIN: self._train,
            AppConstants.TASK_VALIDATION: self._validate,
            AppConstants.TASK_SUBMIT_MODEL: self._submit_model,
        }
        if task_name not in tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        if not is_ok(shareable):
            # A filter has already refused the task data with a reason.
            return shareable
        self._signal = abort_signal
        try:
            dxo = self._received(shareable, fl_ctx)
            trainer = self._prepared(meta_of(dxo), fl_ctx)
            reply = tasks[task_name](trainer, dxo, round_of(shareable)).to_shareable()
        except (Refused, StaleSiteError) as fault:
            self.log_error(fl_ctx, f"declined: {fault}")
            return refusal(ReturnCode.BAD_TASK_DATA, str(fault))
        except Stopped:
            return make_reply(ReturnCode.TASK_ABORTED)
        except (ValueError, OSError, RuntimeError, MemoryError) as fault:
            # No event and below ERROR, since FLARE can send both to the server and the message may name a patient.
            self.log_warning(fl_ctx, f"a fault at this site, which misses this round: {fault}", fire_event=False)
            reason = f"a fault in the site's own data, files or device ({_kind(fault)}); its log says which"
            return refusal(ReturnCode.EXECUTION_EXCEPTION, reason)
        reply.set_header(AppConstants.CURRENT_ROUND, round_of(shareable))
        return reply

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Free the GPU when a job ends, since FLARE takes seconds more to end the process."""
        if event_type == EventType.END_RUN:
            self._trainer = None
            gc.collect()
            torch.cuda.empty_cache()

    def _train(self, trainer: SiteTrainer, dxo: DXO, round_: int) -> DXO:
        """Validate the received model, then train it; validation curves thus need no exchange of their own."""
        scores = class_means(trainer.validate(dxo.data, round_))
        update = trainer.train(dxo.data, round_)
        answer = DXO(DataKind.WEIGHT_DIFF, data=update.tensors)
        answer.set_meta_prop(META, update.report | {trainer.run.task.of_class: scores})
        return answer

    def _validate(self, trainer: SiteTrainer, dxo: DXO, round_: int) -> DXO:
        """Answer with the mean score per class and the number of cases."""
        scores = trainer.validate(dxo.data, round_)
        cases = len({item.case for item in scores})
        return DXO(DataKind.METRICS, data={"cases": cases, trainer.run.task.of_class: class_means(scores)})

    def _submit_model(self, trainer: SiteTrainer, dxo: DXO, round_: int) -> DXO:
        """Answer with the site's own tensors at the end of its last round."""
        trained = trainer.state.trained()
        if trained is None:
            raise Refused("the site has not trained in this run yet, so it has no model to submit")
        answer = DXO(DataKind.WEIGHTS, data=trained)
        answer.set_meta_prop(META, {"cases": len(trainer.site.splits["training"])})
        return answer

    def _received(self, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return the task's payload, checked again here, since a job may leave out the filters.

        Raises:
            Refused: the payload is not the declared one.
        """
        try:
            dxo = content(shareable, (DataKind.WEIGHTS,))
            check(dxo.data, job_run(fl_ctx).download(round_of(shareable)), "server")
            meta_of(dxo)
        except ValueError as fault:
            raise Refused(str(fault)) from fault
        return dxo

    def _prepared(self, meta: dict[str, Any], fl_ctx: FLContext) -> SiteTrainer:
        """Return the trainer, which the first task makes; compare fingerprints at every task.

        Raises:
            Refused: the server's initial model differs from this site's, or the site does not permit the job.
        """
        if self._trainer is None:
            self._trainer = self._made(meta, fl_ctx)
        for name, mine in self._fingerprints.items():
            if meta.get(name) != mine:
                raise Refused(
                    f"{name} at the server is {meta.get(name)}, at this site {mine}: both must start from the same "
                    f"checkpoint file, package versions and kind of processor"
                )
        return self._trainer

    def _made(self, meta: dict[str, Any], fl_ctx: FLContext) -> SiteTrainer:
        job = job_run(fl_ctx)
        name = fl_ctx.get_identity_name()
        local = Path(fl_ctx.get_engine().get_workspace().get_site_config_dir())
        site_file = read_site_file(local / NAME, name)
        self._admitted(site_file, job)
        if not RUN_KEY.fullmatch(str(meta.get("run_key"))):
            raise Refused(f"run_key is {meta.get('run_key')!r}, expected 32 hexadecimal digits")
        torch.set_num_threads(site_file.threads)
        checkpoint = site_file.checkpoint(job.run)
        model = build(job.run, checkpoint)
        self._fingerprints = {
            "run_sha256": job.run.fingerprint,
            "checkpoint_sha256": identity(checkpoint),
            "model_sha256": fingerprint(model),
        }
        if site_file.save_memory:
            checkpoint_activations(model)
        if site_file.compile:
            compile_forward(model)
        site = replace(read_site(site_file.datalist(job.run.data.dataset)), name=name)
        state = run_state(site_file, meta["run_key"])
        cache = site_cache(site_file.cache_dir)
        return SiteTrainer(job.run, site, model, state, site_file.device, lambda: self._signal.triggered, cache)

    def _admitted(self, site_file: SiteFile, job: JobRun) -> None:
        try:
            site_file.admit(job.run.model.method, declared_bytes(job.payload(0), job.run.federation.codec))
        except ValueError as fault:
            raise Refused(str(fault)) from fault


def _kind(fault: Exception) -> str:
    """The part of a fault that may leave the site: its type, and the operating system's text without a path."""
    number = getattr(fault, "errno", None)
    return f"{type(fault).__name__}: {os.strerror(number)}" if number else type(fault).__name__
