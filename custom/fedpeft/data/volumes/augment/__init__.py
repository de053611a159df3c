"""Augmentations of stacks of slices, behind one registry."""
