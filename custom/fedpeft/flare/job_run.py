"""The run as a FLARE component, which a job's executor, filters, controller and persistor all read."""

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
        run: plain values of a ``fedpeft.config.run.RunConfig``, section by section.

    Raises:
        ValueError: a field is unknown or out of range; FLARE then refuses the job's configuration.
    """

    def __init__(self, run: dict[str, Any]) -> None:
        super().__init__()
        # FLARE serialises tensors, as safetensors, only with this decomposer.
        fobs.register(TensorDecomposer)
        self._values = run
        self._payload = lru_cache(maxsize=2)(lambda round_: payload(self.run, round_))
        self._download = lru_cache(maxsize=2)(lambda round_: download(self.run, round_))
        _ = self.run

    @cached_property
    def run(self) -> Run:
        """The validated run, with every value resolved."""
        return Run.from_dict(self._values)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Exempt the objects that exist at a job's start from garbage collection.

        FLARE's controller collects after every round; scanning all imported modules each time would take most of the
        time between two rounds.
        """
        if event_type == EventType.START_RUN:
            gc.freeze()

    def payload(self, round_: int) -> Payload:
        """Declared keys and shapes of a site's update of a round."""
        return self._payload(round_)

    def download(self, round_: int) -> Payload:
        """Declared keys and shapes of the server's download at the start of a round."""
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
