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
        name: its folder below jobs/.
        run: what is trained.
        min_sites: accepted results that a round needs, and sites that must be there for the job to start.
        round_seconds: after this time a round continues with the results that it has.
        straggler_seconds: time for the other sites once ``min_sites`` have answered.
        lost_seconds: how long the server still waits for a site after it has missed the site's heartbeats
            (``deploy/provision.py``).
        poll_seconds: time between a site's requests for work; short for short rounds, longer for many waiting sites.
        initial_run: name in the server's site file of a finished run whose tensors the run starts from; "": none.
        gpus: what it asks of the sites' GPUs; the registered jobs ask for none, as sites may train on what they have.
    """

    name: str
    run: RunConfig
    min_sites: int = 2
    round_seconds: int = 4 * 3600
    straggler_seconds: int = 1800
    lost_seconds: int = 60
    poll_seconds: float = 2.0
    initial_run: str = ""
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
    """FLAP-SAM on a data set of its paper, with the paper's recipe; every site must take part."""
    run = RunConfig.of(method="flap_sam", dataset=name, classes=len(dataset(name).labels or ()) - 1)
    return Job(f"flap_sam_{name}", run.with_(**RECIPES["paper"].fields), min_sites=sites)


# One job for each data set; render others from these: fedpeft job render NAME --method M --name N.
register_jobs(
    # Half an epoch per round averages different sites before they drift apart. The phantoms' learning rate was chosen
    # on their validation cases; the folder job uses the backbone's default.
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
        "flap_sam_image_masks",
        RunConfig.of(
            method="flap_sam",
            dataset="image_masks",
            backbone="sam_tiny",
            labels=("target",),
            rounds=20,
            batch=8,
        ),
    ),
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
