"""The run as a FLARE component: executor, filters, controller and store of a job all read this one record."""

import gc
from functools import cached_property, lru_cache
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

from fedpeft.config.run import Run
from fedpeft.models.payload import Payload, download, payload, whole

COMPONENT = "run"


class JobRun(FLComponent):
    """The ``run`` component of a job, on the server and at every site.

    Args:
        run: fields of ``fedpeft.config.run.Run``, plain values.

    Raises:
        ValueError: a field is unknown or out of range; FLARE then refuses the job's configuration.
    """

    def __init__(self, run: dict[str, Any]) -> None:
        super().__init__()
        # Tensors travel as safetensors; without this, FLARE has no way to write one on the wire.
        fobs.register(TensorDecomposer)
        self._values = run
        self._payload = lru_cache(maxsize=2)(lambda round_: payload(self.run, round_))
        self._download = lru_cache(maxsize=2)(lambda round_: download(self.run, round_))
        _ = self.run

    @cached_property
    def run(self) -> Run:
        """The validated run."""
        return Run.from_dict(self._values)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Spare the garbage collector what is there for good.

        FLARE's controller collects after every round; looking through all the modules again would take most of the
        time between two rounds.
        """
        if event_type == EventType.START_RUN:
            gc.freeze()

    def payload(self, round_: int) -> Payload:
        """Declared keys and shapes of what a round trains and a site sends."""
        return self._payload(round_)

    def download(self, round_: int) -> Payload:
        """Declared keys and shapes of what the server sends at the start of a round."""
        return self._download(round_)

    @cached_property
    def whole(self) -> Payload:
        """Keys and shapes of everything that the run may train."""
        return whole(self.run)


def job_run(fl_ctx: FLContext) -> JobRun:
    """The job's run component.

    Raises:
        RuntimeError: the job's configuration has none.
    """
    component = fl_ctx.get_engine().get_component(COMPONENT)
    if not isinstance(component, JobRun):
        raise RuntimeError(f"the job has no component {COMPONENT!r} of fedpeft; render it with: fedpeft job render")
    return component
