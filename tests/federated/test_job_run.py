"""The run component's own part: what it does when a run starts."""

import gc

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext

from fedpeft.config.run import make_run
from fedpeft.flare.job_run import JobRun


def test_what_is_there_when_a_run_starts_is_spared_the_garbage_collector():
    component = JobRun(make_run("flap_sam", "phantom", "sam_tiny", classes=2).to_dict())
    gc.unfreeze()
    try:
        component.handle_event(EventType.ABOUT_TO_START_RUN, FLContext())
        assert gc.get_freeze_count() == 0
        component.handle_event(EventType.START_RUN, FLContext())
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
