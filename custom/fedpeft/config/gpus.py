"""What a job asks of the sites' GPUs; FLARE's GPU manager assigns a GPU to each training process."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpus:
    """GPUs of a job.

    Attributes:
        count: GPUs per site, 0 or 1. One training computes on one GPU; a site with several runs as many jobs at a time.
        memory: GiB of the GPU that FLARE reserves while the job runs; 0 reserves none, so any number of jobs share it.
        sites: FLARE client names of the sites with GPUs; the job starts without one at others. Empty means every site.
    """

    count: int = 0
    memory: float = 0.0
    sites: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: more GPUs than one training uses, or a request that FLARE cannot express; the message says what
                to do.
        """
        if self.count not in (0, 1):
            raise ValueError(
                f"job: {self.count} GPUs a site, expected 0 or 1: one training computes on one GPU; submit more "
                f"jobs, or let the hospital take part as a second FLARE client with a share of its cases"
            )
        if self.memory < 0:
            raise ValueError(f"job: {self.memory} GiB of GPU memory, expected 0 or more")
        if self.memory and not self.sites:
            raise ValueError(
                f"job: {self.memory:g} GiB of GPU memory at every site, but FLARE takes memory for named sites alone: "
                f"name them with --gpu-sites"
            )
        if not self.count and (self.memory or self.sites):
            raise ValueError("job: GPU memory or GPU sites without a GPU: add --gpus 1")

    def resource_spec(self) -> dict[str, dict[str, float]]:
        """``resource_spec`` of a job's meta.json."""
        if not self.count:
            return {}
        asked: dict[str, float] = {"num_of_gpus": self.count}
        if self.memory:
            asked["mem_per_gpu_in_GiB"] = self.memory
        return {site: dict(asked) for site in self.sites or ("@default",)}
