"""A site's cache: in the folder that the site file names, for this package and these libraries alone."""

import torch

from fedpeft.training.client import site_cache as module
from fedpeft.training.client.site_cache import site_cache


def test_a_folder_or_none(tmp_path):
    assert site_cache(str(tmp_path)).folder == tmp_path
    assert site_cache("").folder is None


def test_another_package_or_library_finds_nothing(tmp_path, monkeypatch):
    made = []

    def ask():
        site_cache(str(tmp_path)).get(["x"], lambda: made.append(0) or {"x": torch.ones(1)})

    ask()
    ask()
    assert len(made) == 1
    monkeypatch.setattr(module, "of_folder", lambda package: "another")
    ask()
    assert len(made) == 2
    monkeypatch.setattr(module, "version", lambda name: "another")
    ask()
    assert len(made) == 3
