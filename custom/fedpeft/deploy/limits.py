"""What a site holds to whatever a job or the server says; named in a kit's ``local/``, never in a job.

FLARE builds these from local/resources.json and local/privacy.json. None of them is in the allow-list, so no job can
name, replace or configure one.
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
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor

from fedpeft.algebra.codec import nbytes
from fedpeft.flare.filters import TENSORS, CheckMetrics, EncodePayload
from fedpeft.flare.job_run import job_run
from fedpeft.flare.messages import content, is_ok, reason_of, refusal, round_of
from fedpeft.training.client.site_file import NAME, SiteFile, read_site_file

CONFIGS = {"config/config_fed_server.json", "config/config_fed_client.json"}
SIGNATURES = {NVFLARE_SIG_FILE, NVFLARE_SUBMITTER_CRT_FILE}


class SiteLimit(Filter):
    """The site's own result filter, in privacy.json: it sees every answer before any filter of the job does.

    A message is made anew from what was checked: the declared payload, encoded as the run says, or a validation's
    numbers, or a refusal's reason. The job's own EncodePayload and CheckMetrics then find nothing left to do, and a job
    that leaves them out changes nothing. ``permit`` of the site file is read at every message.
    """

    def __init__(self) -> None:
        super().__init__()
        self._checks = dict.fromkeys(TENSORS, EncodePayload()) | {DataKind.METRICS: CheckMetrics()}

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """What may leave of an answer, or a refusal that says why nothing does."""
        if not is_ok(shareable):
            return refusal(shareable.get_return_code(), reason_of(shareable))
        try:
            return self._checked(shareable, fl_ctx)
        except ValueError as fault:
            self.log_error(fl_ctx, f"held back: {fault}", fire_event=False)
            return refusal(ReturnCode.TASK_RESULT_FILTER_ERROR, str(fault))

    def _checked(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Raises ValueError: nothing that is declared, or more than the site permits."""
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
        """Raises ValueError, without the file's path or content: the message leaves the site."""
        local = Path(fl_ctx.get_engine().get_workspace().get_site_config_dir())
        try:
            return read_site_file(local / NAME, fl_ctx.get_identity_name())
        except (ValueError, OSError) as fault:
            self.log_warning(fl_ctx, str(fault), fire_event=False)
            raise ValueError("the site's own file of what it permits is missing or faulty; its log says more") from None


class JobFiles(AppValidator):
    """Refuses jobs that hold any file but their two configurations and the signatures, in ``app_validator``.

    FLARE searches the whole workspace, deployed jobs included, for a file named resources.json and takes the first it
    finds; a job that brings one would be heard in the site's place. Files below ``custom`` are code, and FLARE's own
    matter: authorization.json decides who may bring it.
    """

    def validate(self, app_folder: str) -> tuple[str, dict]:
        """FLARE's contract: what is wrong, "" if nothing is, and properties of the app, of which we add none."""
        root = Path(app_folder)
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            if path.is_dir() and not path.is_symlink() or name.parts[0] == WorkspaceConstants.CUSTOM_FOLDER_NAME:
                continue
            if path.is_symlink() or name.name not in SIGNATURES and name.as_posix() not in CONFIGS:
                return f"the job holds {str(name)!r}, expected nothing but {' and '.join(sorted(CONFIGS))}", {}
        return "", {}


class NoShell(FLComponent):
    """Takes FLARE's remote cat, grep, head, tail, ls and pwd from a site, in resources.json.

    FLARE leaves it to the server to say whether a command must be authorised at the site; a server that says no reads
    any file that the client's user can read. What a site never serves needs no authorisation.
    """

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Before the client registers; FLARE does not start a client when this fails.

        Raises:
            UnsafeComponentError: FLARE has no such command where it had it in 2.9, so that it may have it elsewhere.
        """
        if event_type != EventType.SYSTEM_BOOTSTRAP:
            return
        processors = ClientRequestProcessors.request_processors
        kept = [item for item in processors if not isinstance(item, ShellCommandProcessor)]
        if len(kept) == len(processors):
            raise UnsafeComponentError(
                "FLARE's shell commands were not where they are in version 2.9, so they could not be removed: install "
                "the version of FLARE that fedpeft names"
            )
        processors[:] = kept
