"""What can be run: the fields of a run, and the registries of methods, backbones, data sets, codecs and jobs."""
