"""Prepare folders of sites: choose splits and partition, then write everything with one writer."""
