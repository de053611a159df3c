"""Pretraining of the shipped backbones on synthetic images alone, and of a medical model on one site's images."""
