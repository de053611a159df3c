"""A person's connection to the server through FLARE's own API: submit, follow and abort jobs, fetch results."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, TypeVar

from nvflare.fuel.flare_api import api_spec
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from fedpeft.common.files import read_json

ADMIN = Path("startup", "fed_admin.json")
# Time limit in seconds of a login and of an answer; FLARE's default of 5 is too short for a busy server.
ANSWER = 30.0
# Errors that a repeated request would only meet again.
FINAL = (
    api_spec.AuthenticationError,
    api_spec.AuthorizationError,
    api_spec.InvalidJobDefinition,
    api_spec.JobNotFound,
    api_spec.JobNotDone,
    api_spec.JobNotRunning,
    api_spec.InvalidArgumentError,
    ValueError,
    TypeError,
)
Answer = TypeVar("Answer")


class AdminSession:
    """A connection that reconnects when it is lost, since jobs take days and servers are restarted.

    Args:
        kit: the person's kit, the folder that contains startup/fed_admin.json.
        patience: seconds for which requests to a lost server are repeated.

    Raises:
        FileNotFoundError: the folder is not the kit of a person.
        RuntimeError: the server does not answer, or refuses the login.
    """

    def __init__(self, kit: Path, patience: float = 600.0) -> None:
        if not (kit / ADMIN).is_file():
            raise FileNotFoundError(f"{kit} has no {ADMIN}; give the kit of a person, such as lead@example.org")
        self._kit, self._patience = kit.absolute(), patience
        self._admin: dict[str, Any] = read_json(kit / ADMIN)["admin"]
        self._session: Session | None = None
        self._once(lambda session: None)

    def __enter__(self) -> "AdminSession":
        """Return the session itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Log out."""
        self._close()

    def submit(self, job: Path) -> str:
        """Submit a copy of a job's folder, since FLARE writes signatures into the folder.

        Returns:
            The job's id.

        Raises:
            RuntimeError: the server refuses the job; the message says why.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(job, Path(folder, job.resolve().name), symlinks=True)
            # Not repeated: after a lost answer, a second request would run the job twice.
            return self._once(lambda session: session.submit_job(str(copy)))

    def abort(self, job: str) -> str:
        """Abort a job; return the server's answer."""
        return self._once(lambda session: session.abort_job(job))

    def meta(self, job: str) -> dict[str, Any]:
        """The server's record of a job: "status", "job_deploy_detail", "submit_time_iso" and others."""
        return self._ask(lambda session: session.get_job_meta(job))

    def log(self, job: str) -> str:
        """The last 5 MB of the server's log of a job; "" before the job runs."""
        return self._ask(lambda session: session.get_job_logs(job))["logs"].get("server", "")

    def stats(self, job: str) -> dict[str, Any]:
        """A running job's statistics: "phase", "current_round" (0-based), "num_rounds", "tasks"; else {}."""
        with suppress(RuntimeError):
            parts = self._once(lambda session: session.show_stats(job, api_spec.TargetType.SERVER))["server"]
            return next((part for part in parts.values() if "current_round" in part), {})
        return {}

    def download(self, job: str, out: Path) -> Path:
        """Fetch the result of an ended job, unless it was fetched before.

        Returns:
            The result's folder, ``out/<id>``.

        Raises:
            RuntimeError: the job still runs, or there is no such job.
        """
        folder, draft = out / job, out / f".{job}.part"
        if not folder.exists():
            shutil.rmtree(draft, ignore_errors=True)
            os.replace(self._once(lambda session: session.download_job_result(job, str(draft.absolute()))), folder)
            draft.rmdir()
        return folder

    def _ask(self, question: Callable[[Session], Answer]) -> Answer:
        """Send a request; repeat it on a new connection while the server is lost."""
        end = time.monotonic() + self._patience
        while True:
            try:
                return question(self._connected())
            except FINAL as error:
                raise RuntimeError(self._said(error)) from error
            except Exception as error:
                self._close()
                if time.monotonic() > end:
                    raise RuntimeError(self._said(error)) from error
                time.sleep(1.0)

    def _once(self, question: Callable[[Session], Answer]) -> Answer:
        try:
            return question(self._connected())
        except Exception as error:
            # FLARE's errors have no common base class.
            raise RuntimeError(self._said(error)) from error

    def _connected(self) -> Session:
        if self._session is None:
            name = self._admin["username"]
            # FLARE prints messages about the connection.
            with redirect_stdout(sys.stderr):
                self._session = new_secure_session(name, str(self._kit), timeout=ANSWER, command_timeout=ANSWER)
        return self._session

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):
                session.close()

    def _said(self, error: Exception) -> str:
        server = f"{self._admin['host']}:{self._admin['port']}"
        if isinstance(error, FINAL):
            return f"the server {server} refuses: {error}"
        return (
            f"the server {server} does not answer {self._admin['username']}: {error or type(error).__name__}; see "
            f"that it runs and that this kit is of its project: fedpeft doctor --kit {self._kit}"
        )
