"""Render the files of a FLARE job, which is data: it carries no code and names no path of a site."""

import json
from pathlib import Path
from typing import Any

from fedpeft.config.jobs import Job

Files = dict[str, dict[str, Any]]

# Seconds between the server's checks of a task; a check costs next to nothing.
TASK_CHECK = 0.02
# Seconds that a task runs at least before the server stops waiting for lost sites.
LOST_CHECK = 5.0

# The classes that a job may name, one by one. FLARE calls whatever a job names with arguments of the job's choice, so a
# prefix would open every function that a module happens to import, and "nvflare." executors that run commands.
ALLOW_LIST = (
    "fedpeft.flare.aggregator.AdapterAggregator",
    "fedpeft.flare.controller.AdapterRounds",
    "fedpeft.flare.executor.SiteExecutor",
    "fedpeft.flare.filters.CheckMetrics",
    "fedpeft.flare.filters.DecodePayload",
    "fedpeft.flare.filters.EncodePayload",
    "fedpeft.flare.job_run.JobRun",
    "fedpeft.flare.persistor.RunFolderPersistor",
)


def policy() -> dict[str, Any]:
    """The content of local/resources.json in a simulator's workspace; a site's log stays at the site."""
    return {"format_version": 2, "class_allow_list": list(ALLOW_LIST), "allow_log_streaming": False}


def render(job: Job) -> Files:
    """The job's files: path below the job's folder -> content."""
    return {
        "meta.json": {
            "name": job.name,
            "resource_spec": job.gpus.resource_spec(),
            "min_clients": job.min_sites,
            "deploy_map": {"app": ["@ALL"]},
        },
        "app/config/config_fed_server.json": _server(job),
        "app/config/config_fed_client.json": _client(job),
    }


def write(job: Job, folder: Path) -> Path:
    """Write a job below ``folder``.

    Returns:
        The job's own folder.
    """
    for name, content in render(job).items():
        file = folder / job.name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n")
    return folder / job.name


def _server(job: Job) -> dict[str, Any]:
    rounds = {
        "min_sites": job.min_sites,
        "train_timeout": job.round_seconds,
        "wait_time_after_min_received": job.straggler_seconds,
        "task_check_period": TASK_CHECK,
    }
    initial = {"initial_run": job.initial_run} if job.initial_run else {}
    return {
        "format_version": 2,
        "server": {"task_request_interval": job.poll_seconds},
        "dead_client_grace_period": job.lost_seconds,
        "dead_client_check_lead_time": LOST_CHECK,
        "workflows": [_part("rounds", "fedpeft.flare.controller.AdapterRounds", rounds)],
        "components": [
            _part("run", "fedpeft.flare.job_run.JobRun", {"run": job.run.to_dict()}),
            _part("persistor", "fedpeft.flare.persistor.RunFolderPersistor", initial),
            _part("aggregator", "fedpeft.flare.aggregator.AdapterAggregator", {"min_sites": job.min_sites}),
        ],
        "task_data_filters": [_filter(["train", "validate", "submit_model"], "EncodePayload")],
        "task_result_filters": [
            _filter(["train", "submit_model"], "DecodePayload"),
            _filter(["validate"], "CheckMetrics"),
        ],
    }


def _client(job: Job) -> dict[str, Any]:
    tasks = ["train", "validate", "submit_model"]
    executor = {"path": "fedpeft.flare.executor.SiteExecutor", "args": {}}
    return {
        "format_version": 2,
        "executors": [{"tasks": tasks, "executor": executor}],
        "components": [_part("run", "fedpeft.flare.job_run.JobRun", {"run": job.run.to_dict()})],
        "task_data_filters": [_filter(tasks, "DecodePayload")],
        "task_result_filters": [
            _filter(["train", "submit_model"], "EncodePayload"),
            _filter(["validate"], "CheckMetrics"),
        ],
    }


def _part(id_: str, path: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"id": id_, "path": path, "args": args or {}}


def _filter(tasks: list[str], name: str) -> dict[str, Any]:
    return {"tasks": tasks, "filters": [{"path": f"fedpeft.flare.filters.{name}", "args": {}}]}
