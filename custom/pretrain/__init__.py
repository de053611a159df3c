"""Pretraining: the shipped backbones on synthetic images alone, a medical model on one site's images."""
