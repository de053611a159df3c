"""The limits that a site enforces on jobs and the server: its own filter, a check of a job's files, no shell commands.

FLARE builds these components from a kit's local/resources.json and local/privacy.json. None is in the allow-list, so no
job can name, replace or configure one.
"""

from pathlib import Path

from nvflare.apis.app_validation import AppValidator
from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import ReturnCode, WorkspaceConstants
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.fl_context_utils import add_job_audit_event
from nvflare.app_common.app_constant import AppConstants
from nvflare.lighter.tool_consts import NVFLARE_SIG_FILE, NVFLARE_SUBMITTER_CRT_FILE

from fedpeft.algebra.codec import nbytes
from fedpeft.flare.filters import TENSORS, CheckMetrics, EncodePayload
from fedpeft.flare.internals import remove_shell_commands
from fedpeft.flare.job_run import job_run
from fedpeft.flare.messages import content, is_ok, reason_of, refusal, round_of
from fedpeft.training.client.site_file import NAME, SiteFile, read_site_file

CONFIGS = {"config/config_fed_server.json", "config/config_fed_client.json"}
SIGNATURES = {NVFLARE_SIG_FILE, NVFLARE_SUBMITTER_CRT_FILE}


class SiteLimit(Filter):
    """The site's own result filter, named in privacy.json; it runs on every answer before the job's filters.

    It builds a new message from what it has checked: the declared payload, encoded with the run's codec, the numbers of
    a validation, or the reason of a refusal. So a job that leaves out its own EncodePayload and CheckMetrics gains
    nothing. The filter reads ``permit`` of the site file for every message.
    """

    def __init__(self) -> None:
        super().__init__()
        self._checks = dict.fromkeys(TENSORS, EncodePayload()) | {DataKind.METRICS: CheckMetrics()}

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the part of an answer that may leave the site, or a refusal with the reason."""
        if not is_ok(shareable):
            return refusal(shareable.get_return_code(), reason_of(shareable))
        try:
            return self._checked(shareable, fl_ctx)
        except ValueError as fault:
            self.log_error(fl_ctx, f"not sent: {fault}", fire_event=False)
            return refusal(ReturnCode.TASK_RESULT_FILTER_ERROR, str(fault))

    def _checked(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the new message; raise ValueError if the content is not declared or exceeds the permit."""
        dxo = content(shareable, tuple(self._checks))
        declared = self._checks[dxo.data_kind].process_dxo(dxo, shareable, fl_ctx)
        size = nbytes(declared.data) if dxo.data_kind in TENSORS else 0
        self._site_file(fl_ctx).admit(job_run(fl_ctx).run.model.method, size)
        round_ = round_of(shareable)
        what = f"{size} bytes of tensors" if size else "a validation's numbers"
        add_job_audit_event(fl_ctx=fl_ctx, msg=f"leaves the site: {what}, round {round_}")
        reply = declared.to_shareable()
        reply.set_header(AppConstants.CURRENT_ROUND, round_)
        return reply

    def _site_file(self, fl_ctx: FLContext) -> SiteFile:
        """Read the site file; the ValueError of a fault names no path or content, since it leaves the site."""
        local = Path(fl_ctx.get_engine().get_workspace().get_site_config_dir())
        try:
            return read_site_file(local / NAME, fl_ctx.get_identity_name())
        except (ValueError, OSError) as fault:
            self.log_warning(fl_ctx, str(fault), fire_event=False)
            raise ValueError("the site file is missing or faulty; the site's log says more") from None


class JobFiles(AppValidator):
    """The ``app_validator``: it refuses a job with any file but its two configurations and the signatures.

    FLARE searches the whole workspace, deployed jobs included, for a file named resources.json and takes the first that
    it finds, so a job with such a file could replace the site's. Files below ``custom`` are code, which
    authorization.json permits or forbids.
    """

    def validate(self, app_folder: str) -> tuple[str, dict]:
        """Return what FLARE expects: the fault or "", and further properties of the app, here none."""
        root = Path(app_folder)
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            if path.is_dir() and not path.is_symlink() or name.parts[0] == WorkspaceConstants.CUSTOM_FOLDER_NAME:
                continue
            if path.is_symlink() or name.name not in SIGNATURES and name.as_posix() not in CONFIGS:
                return f"the job holds {str(name)!r}, expected nothing but {' and '.join(sorted(CONFIGS))}", {}
        return "", {}


class NoShell(FLComponent):
    """Removes FLARE's remote cat, grep, head, tail, ls and pwd from a site; named in resources.json.

    In FLARE the server decides whether the site must authorise a command, so a server could read any file that the
    client's user can read.
    """

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Remove the commands before the client registers; FLARE does not start a client if this fails.

        Raises:
            UnsafeComponentError: FLARE's commands are not where version 2.9 has them, so they cannot be removed.
        """
        if event_type != EventType.SYSTEM_BOOTSTRAP:
            return
        if not remove_shell_commands():
            raise UnsafeComponentError(
                "FLARE's shell commands were not where they are in version 2.9, so they could not be removed: install "
                "the version of FLARE that fedpeft names"
            )
