"""Restart a site's job process when a signal ended it, so that a site that runs out of memory stops no other site.

With FLARE 2.9's own launcher, a job process that the operating system kills fails the job at every site. A kit's
local/resources.json names this launcher as ``process_launcher`` instead; no job can name it. After a restart the server
sends the round's task again, and the trainer starts from the state before that round, so the repeated round gives the
same result bit for bit.
"""

import logging
import os
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from signal import strsignal
from threading import Lock
from typing import Any

from nvflare.apis.fl_constant import FLContextKey, FLMetaKey, JobConstants
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec, JobReturnCode
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher
from nvflare.app_common.job_launcher.process_launcher import JOB_RETURN_CODE_MAPPING
from nvflare.utils.job_launcher_utils import add_custom_dir_to_path, get_credential_env
from nvflare.utils.process_utils import ProcessAdapter, spawn_process

from fedpeft.flare.internals import job_is_wanted

LOG = logging.getLogger(__name__)
# After so many restarts the site leaves the job: a process that is killed repeatedly only burdens its machine.
RESTARTS = 3
REMEDY = (
    "Signal 9 mostly means that this machine ran out of memory: see its kernel's log, give the site more memory, or "
    "ask for a job with a smaller batch"
)


class RestartedJob(JobHandleSpec):
    """A job process that is started again when a signal ended it.

    Args:
        start: starts the process.
        wanted: returns whether the job still goes on; called before each restart.
        folder: the job's run folder at this site; its name is the job's id.

    Raises:
        OSError: the process could not be started.
    """

    def __init__(self, start: Callable[[], ProcessAdapter], wanted: Callable[[], bool], folder: Path) -> None:
        super().__init__()
        self._start, self._wanted, self._folder = start, wanted, folder
        self._lock, self._ended, self._deaths = Lock(), False, 0
        self._process = start()

    def terminate(self) -> None:
        """End the process without a restart: the job was aborted or is over."""
        with self._lock:
            self._ended = True
            self._process.terminate()

    def poll(self) -> int:
        """The return code that FLARE reports to the server.

        A process that a signal ended, or that failed after a restart, concerns this site alone: the code is UNKNOWN,
        which does not fail the job.
        """
        code = self._process.poll()
        if code is None or code < 0 or code > 0 and self._deaths:
            return JobReturnCode.UNKNOWN
        return JOB_RETURN_CODE_MAPPING.get(code, JobReturnCode.EXECUTION_ERROR)

    def wait(self) -> None:
        """Wait until the process has ended and is not restarted."""
        while True:
            self._process.wait()
            with self._lock:
                if self._process.poll() >= 0 or self._ended or not self._wanted() or not self._again():
                    break
        if self._deaths:
            # FLARE prefers the code in this file to that of poll().
            (self._folder / FLMetaKey.PROCESS_RC_FILE).unlink(missing_ok=True)

    def _again(self) -> bool:
        """Start the process again, at most ``RESTARTS`` times; return whether it runs."""
        self._deaths += 1
        number = -self._process.poll()
        died = f"the process of job {self._folder.name} was ended by signal {number} ({strsignal(number)})"
        if self._deaths > RESTARTS:
            LOG.error("%s for the %dth time, so this site leaves the job. %s", died, self._deaths, REMEDY)
            return False
        LOG.error("%s; it is started again (%d of %d). %s", died, self._deaths, RESTARTS, REMEDY)
        try:
            self._process = self._start()
        except OSError as error:
            LOG.error("the process of job %s could not be started again: %s", self._folder.name, error)
            return False
        return True


class RestartingLauncher(ClientProcessJobLauncher):
    """FLARE's launcher of a client's job process, with a handle that restarts the process."""

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> RestartedJob:
        """Start the process of a job.

        A restart has the environment of the first start, in which FLARE names the job's GPUs; the next job changes
        FLARE's own environment.

        Raises:
            OSError: the process could not be started.
        """
        job, workspace = job_meta[JobConstants.JOB_ID], fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        environment = os.environ | get_credential_env(fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS))
        add_custom_dir_to_path(workspace.get_app_custom_dir(job), environment)
        arguments = shlex.split(self.get_command(job_meta, fl_ctx), comments=True)
        start = partial(spawn_process, arguments, environment)
        return RestartedJob(start, partial(job_is_wanted, fl_ctx.get_engine(), job), Path(workspace.get_run_dir(job)))
