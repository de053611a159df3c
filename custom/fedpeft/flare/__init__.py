"""The NVIDIA FLARE integration: the components that FLARE builds from a job's configuration, and job rendering."""
