"""The site's executor: FLARE tasks in, tensors and numbers out. It only translates; ``fedpeft.training`` does the work."""

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
from fedpeft.training.client.site_cache import site_cache
from fedpeft.training.client.site_file import NAME, RUN_KEY, SiteFile, read_site_file, run_state
from fedpeft.training.client.trainer import SiteTrainer, StaleSiteError
from fedpeft.training.engine.acceleration import checkpoint_activations, compile_forward


class Refused(Exception):
    """The site declines the task on principle; the message may leave the site and names no file of it."""


class SiteExecutor(Executor):
    """Serves the tasks train, validate and submit_model.

    What the site declines on principle (another payload, another initial model, a method it does not permit) is answered
    with the reason. A fault in the site's own files is not: its message may name patients, and stays in the site's log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trainer: SiteTrainer | None = None
        self._fingerprints: dict[str, str] = {}
        self._signal = Signal()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Do one task; FLARE's abort signal is obeyed before every step."""
        tasks = {
            AppConstants.TASK_TRAIN: self._train,
            AppConstants.TASK_VALIDATION: self._validate,
            AppConstants.TASK_SUBMIT_MODEL: self._submit_model,
        }
        if task_name not in tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        if not is_ok(shareable):
            # The filter before us has refused the task data and says why.
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
            # As no event and below ERROR, since FLARE can send both to the server: the message may name a patient.
            self.log_warning(fl_ctx, f"a fault at this site, which misses this round: {fault}", fire_event=False)
            reason = f"a fault in the site's own data, files or device ({_kind(fault)}); its log says which"
            return refusal(ReturnCode.EXECUTION_EXCEPTION, reason)
        reply.set_header(AppConstants.CURRENT_ROUND, round_of(shareable))
        return reply

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Leave the GPU when a job is over or aborted: FLARE takes seconds more to end the process."""
        if event_type == EventType.END_RUN:
            self._trainer = None
            gc.collect()
            torch.cuda.empty_cache()

    def _train(self, trainer: SiteTrainer, dxo: DXO, round_: int) -> DXO:
        """The model as received is validated first, so that every round's curve comes without another exchange."""
        scores = class_means(trainer.validate(dxo.data, round_))
        update = trainer.train(dxo.data, round_)
        answer = DXO(DataKind.WEIGHT_DIFF, data=update.difference)
        report = {"cases": update.cases, "loss": update.loss, "seconds": update.seconds}
        answer.set_meta_prop(META, report | {trainer.run.task.of_class: scores})
        return answer

    def _validate(self, trainer: SiteTrainer, dxo: DXO, round_: int) -> DXO:
        """Mean score per class, and the number of cases behind it."""
        scores = trainer.validate(dxo.data, round_)
        cases = len({item.case for item in scores})
        return DXO(DataKind.METRICS, data={"cases": cases, trainer.run.task.of_class: class_means(scores)})

    def _submit_model(self, trainer: SiteTrainer, dxo: DXO, round_: int) -> DXO:
        """The site's own tensors at the end of its last round."""
        trained = trainer.state.trained()
        if trained is None:
            raise Refused("the site has not trained in this run yet, so it has no model to submit")
        answer = DXO(DataKind.WEIGHTS, data=trained)
        answer.set_meta_prop(META, {"cases": len(trainer.site.splits["training"])})
        return answer

    def _received(self, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """The task's payload, checked here as well: a job may have left out the filters.

        Raises:
            Refused: it is not the declared one.
        """
        try:
            dxo = content(shareable, (DataKind.WEIGHTS,))
            check(dxo.data, job_run(fl_ctx).download(round_of(shareable)), "server")
            meta_of(dxo)
        except ValueError as fault:
            raise Refused(str(fault)) from fault
        return dxo

    def _prepared(self, meta: dict[str, Any], fl_ctx: FLContext) -> SiteTrainer:
        """The trainer, made at the first task; every task's fingerprints are compared.

        Raises:
            Refused: the server's initial model is not the one this site builds, or the site does not permit the job.
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
        self._fingerprints = {"checkpoint_sha256": identity(checkpoint), "model_sha256": fingerprint(model)}
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
    """What may be said elsewhere of a fault: its type, and of the system's errors the system's words without a path."""
    number = getattr(fault, "errno", None)
    return f"{type(fault).__name__}: {os.strerror(number)}" if number else type(fault).__name__
