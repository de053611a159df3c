"""FLARE jobs as registry entries; ``fedpeft.flare.rendering`` writes their files."""

import re
from dataclasses import dataclass

from fedpeft.common.registry import Registry
from fedpeft.config.datasets import dataset
from fedpeft.config.gpus import Gpus
from fedpeft.config.presets import RECIPES
from fedpeft.config.run import RunConfig

# It becomes a folder's name.
NAME = re.compile(r"\w[\w.-]*", re.ASCII)


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
    run: RunConfig
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
        if not NAME.fullmatch(self.name):
            raise ValueError(f"job name is {self.name!r}, expected a folder's name: letters, digits, . - and _")
        for name in ("min_sites", "round_seconds", "straggler_seconds", "lost_seconds", "poll_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"job {self.name}: {name} is {getattr(self, name)}, expected above 0")


JOBS: Registry[Job] = Registry("job")


def register_jobs(*entries: Job) -> None:
    """Add jobs; ValueError if there is one of that name."""
    for entry in entries:
        JOBS.register(entry.name, entry)


def _of_the_paper(name: str, sites: int) -> Job:
    """FLAP-SAM on a data set of its paper, trained as the paper trains; every site must take part."""
    run = RunConfig.of(method="flap_sam", dataset=name, classes=len(dataset(name).labels or ()) - 1)
    return Job(f"flap_sam_{name}", run.with_(**RECIPES["paper"].fields), min_sites=sites)


# One job for each data set; every other is rendered from one of these: fedpeft job render NAME --method M --name N.
register_jobs(
    # Half an epoch a round: sites that differ are averaged before they drift apart. The phantoms' learning rate was
    # chosen on their validation cases; that of the folder is the backbone's default.
    Job(
        "flap_sam_phantom",
        RunConfig.of(
            method="flap_sam",
            dataset="phantom",
            backbone="sam_tiny",
            classes=2,
            rounds=10,
            local_epochs=0.5,
            batch=2,
            base_learning_rate=5e-3,
        ),
        min_sites=3,
        round_seconds=600,
        straggler_seconds=60,
        poll_seconds=0.1,
    ),
    Job(
        "flap_sam_folder",
        RunConfig.of(
            method="flap_sam",
            dataset="folder",
            backbone="sam_tiny",
            labels=("target",),
            rounds=20,
            local_epochs=0.5,
            batch=2,
        ),
    ),
    _of_the_paper("kits19", 6),
    _of_the_paper("ixi", 3),
    _of_the_paper("prostate", 6),
    Job(
        "lora_images",
        RunConfig.of(
            method="lora",
            dataset="images",
            backbone="vit_tiny",
            classes=2,
            rounds=20,
            local_epochs=1.0,
            batch=32,
            codec="bfloat16",
        ),
    ),
    Job(
        "lora_isic2019",
        RunConfig.of(
            method="lora",
            dataset="isic2019",
            backbone="vit_b16",
            classes=8,
            rounds=50,
            local_epochs=1.0,
            batch=64,
            codec="bfloat16",
        ),
        min_sites=6,
    ),
)
