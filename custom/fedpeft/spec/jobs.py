"""FLARE jobs as rows, and their rendering: a job is data, it carries no code and names no path of a site."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpeft.spec.datasets import dataset
from fedpeft.spec.gpus import Gpus
from fedpeft.spec.methods import METHODS
from fedpeft.spec.presets import TRAININGS
from fedpeft.spec.run import Run

Files = dict[str, dict[str, Any]]

# Seconds between the server's looks at a task; it costs nothing.
TASK_CHECK = 0.02
# Seconds that a task is at least given before sites that were lost are no longer waited for.
LOST_CHECK = 5.0


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        name: of its folder below jobs/.
        run: what is trained.
        min_sites: accepted results that a round needs, and sites that must be there for the job to start.
        round_seconds: a round goes on with the results it has after this time.
        straggler_seconds: time for the other sites once ``min_sites`` have answered.
        lost_seconds: a site of which the server hears nothing is not waited for after this time; it begins when the
            server has missed the site's heartbeats (provision.py).
        poll_seconds: between a site's questions for work: short where rounds are, longer where many sites wait long.
        gpus: what it asks of the sites' GPUs; a row asks for none, since sites may train on whatever they have.
    """

    name: str
    run: Run
    min_sites: int = 2
    round_seconds: int = 4 * 3600
    straggler_seconds: int = 1800
    lost_seconds: int = 60
    poll_seconds: float = 2.0
    gpus: Gpus = Gpus()

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is out of range; the message names the field.
        """
        for name in ("min_sites", "round_seconds", "straggler_seconds", "lost_seconds", "poll_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"job {self.name}: {name} is {getattr(self, name)}, expected above 0")



def _of_the_paper(method: str, name: str, sites: int) -> Job:
    """A method on a data set of the FLAP-SAM paper, trained as the paper trains; every site must take part."""
    training = TRAININGS["paper"]
    classes = len(dataset(name).labels) - 1
    rate = {"learning_rate": training.learning_rate}
    run = Run(method, name, "sam_vit_b", classes=classes, **rate, **training.fields())
    return Job(f"{method}_{name}", run, min_sites=sites)


_ROWS = (
    # Half an epoch a round: sites that differ are averaged before they drift apart. The phantoms' step size was chosen
    # on their validation cases; that of the folder is the backbone's default.
    Job(
        "flap_sam_phantom",
        Run(
            "flap_sam", "phantom", "sam_tiny", classes=2, rounds=10, local_epochs=0.5, batch=2, learning_rate=5e-3
        ),
        min_sites=3, round_seconds=600, straggler_seconds=60, poll_seconds=0.1,
    ),
    Job(
        "flap_sam_folder",
        Run("flap_sam", "folder", "sam_tiny", labels=("target",), rounds=20, local_epochs=0.5, batch=2),
    ),
    *(_of_the_paper(name, "kits19", 6) for name, row in METHODS.items() if "segmentation" in row.tasks),
    _of_the_paper("flap_sam", "ixi", 3),
    _of_the_paper("flap_sam", "prostate", 6),
    Job(
        "lora_images",
        Run("lora", "images", "vit_tiny", classes=2, rounds=20, local_epochs=1.0, batch=32, codec="bfloat16"),
    ),
    *(
        Job(
            f"{name}_isic2019",
            Run(name, "isic2019", "vit_b16", classes=8, rounds=50, local_epochs=1.0, batch=64, codec="bfloat16"),
            min_sites=6,
        )
        for name in ("lora", "vpt_deep", "dvpt", "sba", "lora_vpt", "full_ft")
    ),
)

JOBS: dict[str, Job] = {row.name: row for row in _ROWS}


# All that a job without code of its own may name, class by class. No prefix: FLARE calls whatever a job names with
# arguments of the job's choice, and a prefix would open every function that a module happens to import; "nvflare." as a
# whole would open executors that run commands.
ALLOW_LIST = (
    "fedpeft.flare.aggregator.AdapterAggregator",
    "fedpeft.flare.controller.AdapterRounds",
    "fedpeft.flare.executor.SiteExecutor",
    "fedpeft.flare.filters.CheckMetrics",
    "fedpeft.flare.filters.DecodeParcel",
    "fedpeft.flare.filters.EncodeParcel",
    "fedpeft.flare.generator.ParcelGenerator",
    "fedpeft.flare.job_run.JobRun",
    "fedpeft.flare.persistor.RunFolderPersistor",
)


def policy() -> dict[str, Any]:
    """local/resources.json of a simulator's workspace; a site's log stays at the site."""
    return {"format_version": 2, "class_allow_list": list(ALLOW_LIST), "allow_log_streaming": False}


def render(row: Job) -> Files:
    """The job's files: path below the job's folder -> content."""
    return {
        "meta.json": {
            "name": row.name, "resource_spec": row.gpus.resource_spec(), "min_clients": row.min_sites,
            "deploy_map": {"app": ["@ALL"]},
        },
        "app/config/config_fed_server.json": _server(row),
        "app/config/config_fed_client.json": _client(row),
    }


def write(row: Job, folder: Path) -> Path:
    """Write a job below ``folder``.

    Returns:
        The job's own folder.
    """
    for name, content in render(row).items():
        file = folder / row.name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n")
    return folder / row.name


def _server(row: Job) -> dict[str, Any]:
    rounds = {
        "num_rounds": row.run.rounds, "min_sites": row.min_sites, "train_timeout": row.round_seconds,
        "wait_time_after_min_received": row.straggler_seconds, "task_check_period": TASK_CHECK,
    }
    return {
        "format_version": 2,
        "server": {"task_request_interval": row.poll_seconds},
        "dead_client_grace_period": row.lost_seconds,
        "dead_client_check_lead_time": LOST_CHECK,
        "workflows": [_part("rounds", "fedpeft.flare.controller.AdapterRounds", rounds)],
        "components": [
            _part("run", "fedpeft.flare.job_run.JobRun", {"run": row.run.to_dict()}),
            _part("persistor", "fedpeft.flare.persistor.RunFolderPersistor"),
            _part("shareable_generator", "fedpeft.flare.generator.ParcelGenerator"),
            _part("aggregator", "fedpeft.flare.aggregator.AdapterAggregator", {"min_sites": row.min_sites}),
        ],
        "task_data_filters": [_filter(["train", "validate", "submit_model"], "EncodeParcel")],
        "task_result_filters": [
            _filter(["train", "submit_model"], "DecodeParcel"), _filter(["validate"], "CheckMetrics"),
        ],
    }


def _client(row: Job) -> dict[str, Any]:
    tasks = ["train", "validate", "submit_model"]
    executor = {"path": "fedpeft.flare.executor.SiteExecutor", "args": {}}
    return {
        "format_version": 2,
        "executors": [{"tasks": tasks, "executor": executor}],
        "components": [_part("run", "fedpeft.flare.job_run.JobRun", {"run": row.run.to_dict()})],
        "task_data_filters": [_filter(tasks, "DecodeParcel")],
        "task_result_filters": [
            _filter(["train", "submit_model"], "EncodeParcel"), _filter(["validate"], "CheckMetrics"),
        ],
    }


def _part(id_: str, path: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"id": id_, "path": path, "args": args or {}}


def _filter(tasks: list[str], name: str) -> dict[str, Any]:
    return {"tasks": tasks, "filters": [{"path": f"fedpeft.flare.filters.{name}", "args": {}}]}
