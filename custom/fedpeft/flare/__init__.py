"""The federation: what NVIDIA FLARE builds from a job's configuration. The only room that imports nvflare."""
