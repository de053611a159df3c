"""Write the policy of admin/README.md into every kit that ``nvflare provision`` makes.

admin/project.yml lists this builder after FLARE's own. The files of local/ belong to the site and are not signed: the
site starts with them and may change them. FLARE falls back to the files that end in .default, and ``nvflare deploy
prepare`` deletes the others, so both have the same content.
"""

import shutil
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import WorkspaceConstants
from nvflare.lighter.spec import Builder, Project, ProvisionContext

from fedpeft.common.files import read_json, write_json
from fedpeft.common.fingerprint import WHEEL, of_wheel
from fedpeft.flare.rendering import ALLOW_LIST
from fedpeft.training.client.site_file import NAME, VERSION

WHEEL_FOLDER = "wheel"
LIMITS = "fedpeft.deploy.limits"
STORAGE = "fedpeft.deploy.storage"
CONTINUATION = "fedpeft.deploy.continuation.Continuation"
LAUNCHER = "fedpeft.deploy.launcher.RestartingLauncher"
# Seconds without a heartbeat after which the server counts a site as lost; with FLARE's 600 a round could wait ten
# minutes for a lost site.
HEART_BEAT_TIMEOUT = 25
# A job waits a week for its sites; FLARE's ten attempts would end a run in 40 minutes. From 1024 on FLARE's scheduler
# fails, since it computes 2 to the power of the attempts.
SCHEDULING = {"max_schedule_count": 1000, "min_schedule_interval": 2.0, "max_schedule_interval": 600.0}

# Nobody may bring code in jobs, use FLARE's shell commands, or run Flower. A role may do only what is listed here, so
# the role "member" may do nothing, and nobody may use a command that is not listed, such as an application's own.
_NEVER = dict.fromkeys(("byoc", "shell_commands", "server-predeployed-flwr"), "none")
_NO_ERRORS = dict.fromkeys(("show_errors", "reset_errors"), "none")
RIGHTS: dict[str, dict[str, str]] = {
    "lead": {
        "submit_job": "any",
        "clone_job": "n:submitter",
        "manage_job": "n:submitter",
        "download_job": "n:submitter",
        "get_job_log": "n:submitter",
        "view": "any",
        "report_version": "any",
        "operate": "none",
        **_NO_ERRORS,
        **_NEVER,
    },
    "project_admin": {
        "submit_job": "none",
        "clone_job": "none",
        "manage_job": "any",
        "download_job": "any",
        "get_job_log": "any",
        "view": "any",
        "report_version": "any",
        "operate": "o:site",
        **_NO_ERRORS,
        **_NEVER,
    },
    "org_admin": {
        "submit_job": "none",
        "clone_job": "none",
        "manage_job": "none",
        "download_job": "none",
        "get_job_log": "none",
        "view": "o:site",
        "report_version": "o:site",
        "operate": "o:site",
        **_NEVER,
    },
}
_CHECKPOINTS = {"sam_vit_b": {"path": "/path/to/sam_vit_b_01ec64.pth", "sha256": "its 64 hexadecimal digits"}}


def authorization() -> dict[str, Any]:
    """The content of local/authorization.json: who may do what at a site. FLARE resolves "site" and "submitter"."""
    return {"format_version": "1.0", "permissions": RIGHTS}


def privacy() -> dict[str, Any]:
    """The content of local/privacy.json: a single scope, so that no job can ask for another."""
    filters = [{"path": f"{LIMITS}.SiteLimit", "args": {}}]
    return {"scopes": [{"name": "fedpeft", "task_result_filters": filters}], "default_scope": "fedpeft"}


def site_template() -> dict[str, Any]:
    """A hospital's local/fedpeft_site.json, to be filled in; it permits no method until the hospital names one."""
    return {
        "version": VERSION,
        "datasets": {"kits19": "/path/to/kits19/{site}/datalist.json"},
        "checkpoints": _CHECKPOINTS,
        "device": "cuda:0",
        "threads": 4,
        "state_dir": "/path/to/state",
        "permit": {"methods": [], "max_upload_bytes": 10_000_000},
    }


def server_template() -> dict[str, Any]:
    """The server's local/fedpeft_site.json, to be filled in."""
    return {"version": VERSION, "checkpoints": _CHECKPOINTS, "threads": 4}


def client_resources(given: dict[str, Any]) -> dict[str, Any]:
    """A hospital's local/resources.json, made from FLARE's; the GPU manager stays as project.yml configures it."""
    launcher = {"id": "process_launcher", "path": LAUNCHER, "args": {}}
    parts = [
        launcher if part["id"] == launcher["id"] else part
        for part in given["components"]
        if part["id"] != "site_log_streamer"
    ]
    parts.append({"id": "no_shell", "path": f"{LIMITS}.NoShell", "args": {}})
    return _policy(given) | {"allow_log_streaming": False, "components": parts}


def server_resources(given: dict[str, Any]) -> dict[str, Any]:
    """The server's local/resources.json, made from FLARE's: jobs stay in the kit, runs are continued, no site logs."""
    storage = {"path": f"{STORAGE}.KitStorage", "args": {"root_dir": "snapshot-storage"}}
    snapshots = given["snapshot_persistor"]
    return _policy(given) | {
        "servers": [server | {"heart_beat_timeout": HEART_BEAT_TIMEOUT} for server in given["servers"]],
        "snapshot_persistor": snapshots | {"args": snapshots["args"] | {"storage": storage}},
        "components": [
            *(_server_part(part) for part in given["components"] if part["id"] != "log_receiver"),
            {"id": "continuation", "path": CONTINUATION, "args": {}},
        ],
    }


def _server_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["id"] == "job_manager":
        return part | {"path": f"{STORAGE}.KitJobs", "args": {"uri_root": "jobs-storage"}}
    if part["id"] == "job_scheduler":
        return part | {"args": part["args"] | SCHEDULING}
    return part


def log_config(given: dict[str, Any]) -> dict[str, Any]:
    """local/log_config.json, made from FLARE's: log_fl.txt, which has few of FLARE's lines, has fedpeft's."""
    chosen = given["filters"]["FLFilter"]
    filters = given["filters"] | {"FLFilter": chosen | {"logger_names": [*chosen["logger_names"], "fedpeft"]}}
    return given | {"filters": filters}


class PolicyBuilder(Builder):
    """Writes the policy into all kits, and puts the wheel beside them.

    Args:
        wheel_folder: folder of the one wheel of fedpeft (see admin/wheels.sh), relative to the current folder. With
            None no kit names a wheel; poc/ uses this, since it runs the installed package.
    """

    def __init__(self, wheel_folder: str | None) -> None:
        super().__init__()
        self.wheel_folder = None if wheel_folder is None else Path(wheel_folder)
        self._wheel = Path()
        self._stated: dict[str, str] = {}

    def initialize(self, project: Project, ctx: ProvisionContext) -> None:
        """Find the wheel before FLARE makes keys.

        Raises:
            ValueError: the folder does not contain exactly one wheel, or it is not a wheel of fedpeft.
        """
        if self.wheel_folder:
            self._wheel = _one_wheel(self.wheel_folder)
            self._stated = of_wheel(self._wheel)

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Write the files, made from those of FLARE's StaticFileBuilder."""
        if self.wheel_folder:
            self._hand_out(project, ctx)
        _server(Path(ctx.get_local_dir(project.get_server())))
        for client in project.get_clients():
            _client(Path(ctx.get_local_dir(client)))

    def _hand_out(self, project: Project, ctx: ProvisionContext) -> None:
        beside = Path(ctx.get_wip_dir()) / WHEEL_FOLDER
        beside.mkdir()
        shutil.copyfile(self._wheel, beside / self._wheel.name)
        (beside / "SHA256SUMS").write_text(f"{self._stated['sha256']}  {self._wheel.name}\n")
        for participant in project.get_all_participants():
            write_json(Path(ctx.get_local_dir(participant)) / WHEEL, self._stated)


def _server(local: Path) -> None:
    _shared(local)
    _with_default(local, WorkspaceConstants.RESOURCES_CONFIG, server_resources(_given(local, "resources.json")))
    write_json(local / NAME, server_template())


def _client(local: Path) -> None:
    _shared(local)
    _with_default(local, WorkspaceConstants.RESOURCES_CONFIG, client_resources(_given(local, "resources.json")))
    write_json(local / WorkspaceConstants.PRIVACY_CONFIG, privacy())
    write_json(local / NAME, site_template())


def _policy(given: dict[str, Any]) -> dict[str, Any]:
    validator = {"path": f"{LIMITS}.JobFiles", "args": {}}
    return given | {
        "class_allow_list": list(ALLOW_LIST),
        "class_list_enforcement_mode": "enforce",
        "app_validator": validator,
    }


def _shared(local: Path) -> None:
    """Write the files that all sites share; remove FLARE's sample privacy policy, whose filters no job needs."""
    _with_default(local, WorkspaceConstants.AUTHORIZATION_CONFIG, authorization())
    _with_default(local, WorkspaceConstants.LOGGING_CONFIG, log_config(_given(local, "log_config.json")))
    (local / WorkspaceConstants.SAMPLE_PRIVACY_CONFIG).unlink()


def _given(local: Path, name: str) -> dict[str, Any]:
    return read_json(local / f"{name}.default")


def _with_default(local: Path, name: str, content: dict[str, Any]) -> None:
    for file in (local / name, local / f"{name}.default"):
        write_json(file, content)


def _one_wheel(folder: Path) -> Path:
    wheels = sorted(folder.glob("fedpeft-*.whl"))
    if len(wheels) != 1:
        found = ", ".join(wheel.name for wheel in wheels) or "none"
        raise ValueError(
            f"wheel_folder {folder} holds {found}, expected one wheel of fedpeft; build it with admin/wheels.sh, and "
            f"run nvflare provision in the folder that project.yml's wheel_folder starts from"
        )
    return wheels[0]
