"""The registry of sources: what the package brings is found, and a source from outside is one call."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from photos import lines_of, write_tree
from sources import call

from fedpeft.config.datasets import DATASETS, Dataset, register_datasets
from fedpeft.data.found import Found, FoundCase
from fedpeft.data.sources.registry import (
    SOURCES,
    Source,
    add_partition,
    add_seed,
    add_source,
    register_source,
)

NAME = "retina"


def find(args: argparse.Namespace) -> Found:
    """<site>/<image>.png, two images a patient."""
    cases = [
        FoundCase(file.parent.name, file.stem, file, target=index % 2, group=f"patient-{index // 2}")
        for index, file in enumerate(sorted(args.source.glob("*/*.png")))
    ]
    return Found(args.source, NAME, ("healthy", "ill"), cases)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "folder of <site>/<image>.png")
    add_partition(parser)
    add_seed(parser, "of every random choice")


RETINA = Source(
    NAME, "The source holds <site>/<image>.png.", ("fedpeft data prepare retina --help",), add_options, find
)


@pytest.fixture
def retina(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES))
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS))
    register_datasets(Dataset(NAME, "Photographs of the eye", task="classification"))
    yield register_source(RETINA)


def test_what_the_package_brings() -> None:
    assert {"folder", "images", "isic2019", "ixi", "kits19", "prostate"} <= set(SOURCES)
    assert all(name in DATASETS and source.name == name for name, source in SOURCES.items())
    with pytest.raises(ValueError, match="unknown source 'kits'; known: .*folder.*images"):
        SOURCES.find("kits")


def test_a_source_from_outside_is_a_command(retina: Source, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"a": 20, "b": 20})
    assert call("prepare", NAME, "--source", source, "--out", tmp_path / "out", "--seed", 3) == 0
    lines = lines_of(tmp_path / "out" / "split.csv")
    assert len(lines) == 40 and {line["site"] for line in lines} == {"a", "b"}
    assert {line["split"] for line in lines} == {"training", "validation", "test"}
    words = ("--partition", "iid", "--sites", 4)
    assert call("prepare", NAME, "--source", source, "--out", tmp_path / "dealt", *words) == 0
    assert len({line["site"] for line in lines_of(tmp_path / "dealt" / "split.csv")}) == 4
    assert call("check", tmp_path / "dealt") == 0


def test_a_name_is_registered_once(retina: Source) -> None:
    assert register_source(retina) is retina
    with pytest.raises(ValueError, match="source 'retina' is registered already"):
        register_source(Source(NAME, "Another.", (), add_options, find))
