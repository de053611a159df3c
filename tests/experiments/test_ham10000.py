"""The HAM10000 benchmark's splits share no image and no lesion where they must not, and its numbers are right."""

import csv
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import ham10000_splits as splits
import numpy as np
import pytest
from bench_ham10000 import Bench, federations, joined, parse
from ham10000_numbers import Experiment, balanced, columns_of, slope
from ham10000_table import write_tables
from PIL import Image

from fedpeft.data.datalist import SPLITS, Site, read_sites
from fedpeft.data.found import FoundCase
from fedpeft.tasks.scores import CaseScore, mean_score

CENTRES = ("1", "2", "3", "5")
# Lesions of each centre by class; "df" has too few to be evaluated.
LESIONS = {"nv": 14, "mel": 9, "df": 2}


def rows() -> list[dict[str, str]]:
    """A manifest: every third lesion has two images, and two lesions were seen at two centres."""
    found = []
    for centre in CENTRES:
        for name, count in LESIONS.items():
            for index in range(count):
                lesion = f"{name}-{centre}-{index}"
                if index == 0 and centre in ("2", "3"):
                    lesion = f"{name}-{ {'2': '1', '3': '5'}[centre] }-1"
                found += [(lesion, name, centre)] * (2 if index % 3 == 0 else 1)
    keys = ("lesion_id", "dx", "center")
    return [
        dict(zip(keys, row, strict=True)) | {"image_id": f"i{number}", "image": f"images/i{number}.png"}
        for number, row in enumerate(found)
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A small folder like HAM10000's."""
    folder, generator = tmp_path_factory.mktemp("ham"), np.random.default_rng(0)
    (folder / "images").mkdir()
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=["image_id", "lesion_id", "dx", "center", "image"])
        writer.writeheader()
        for row in rows():
            Image.fromarray(generator.integers(0, 255, (8, 10, 3), dtype=np.uint8)).save(folder / row["image"])
            writer.writerow(row)
    return folder


@pytest.fixture(scope="module")
def bench(source: Path, tmp_path_factory) -> Bench:
    return Bench(arguments(source, tmp_path_factory.mktemp("out")))


def arguments(source: Path, out: Path) -> Namespace:
    return parse(["--source", str(source), "--out", str(out)])


def lesions(images: Sequence[FoundCase], *names: str) -> set[str]:
    return {item.group for item in images if not names or item.split in names}


def cases(images: Sequence[FoundCase], *names: str) -> set[str]:
    return {item.case for item in images if not names or item.split in names}


def refuse_leaks(source: Path, seeds: Sequence[int] = (0, 1)) -> None:
    """Assert that no image or lesion is on two sides of anything."""
    everything, names = splits.read_manifest(source)
    pretraining, (evaluated, labels) = splits.pretraining(everything), splits.evaluated(everything, names)
    assert pretraining and evaluated and len(labels) >= 2
    assert {item.site for item in pretraining} == {splits.PRETRAINING}
    assert splits.PRETRAINING not in {item.site for item in evaluated}
    assert not lesions(pretraining) & lesions(evaluated) and not cases(pretraining) & cases(evaluated)
    centres = sorted({item.site for item in evaluated})
    for seed in seeds:
        natural = splits.natural(evaluated, seed)
        assert cases(natural) == cases(evaluated) and len(natural) == len(evaluated)
        for partition in splits.PARTITIONS.values():
            dealt = partition(natural, seed)
            assert len({item.site for item in dealt}) == len(centres)
            for first, second in (("training", "test"), ("training", "validation"), ("validation", "test")):
                assert lesions(dealt, first) and not lesions(dealt, first) & lesions(dealt, second)
            # So that partitions are compared on the same images.
            assert all(cases(dealt, split) == cases(natural, split) for split in SPLITS)
        for centre in centres:
            others, own = splits.left_out(natural, centre)
            assert {item.site for item in own} == {centre} and len(others) + len(own) == len(natural)
            assert centre not in {item.site for item in others} and not lesions(others) & lesions(own)


class TestSplits:
    def test_share_nothing(self, source: Path) -> None:
        refuse_leaks(source)

    def test_share_nothing_on_the_real_manifest(self, shared_data: Path) -> None:
        refuse_leaks(shared_data / "ham10000")

    def test_the_manifest_has_what_could_leak(self, source: Path) -> None:
        """Lesions at two centres, one of them the pretraining one, and lesions with two images."""
        everything, _ = splits.read_manifest(source)
        sites = {item.group: {other.site for other in everything if other.group == item.group} for item in everything}
        assert {"centre-1", "centre-2"} in sites.values() and {"centre-3", "centre-5"} in sites.values()
        assert len(cases(everything)) > len(lesions(everything))

    def test_rare_classes_go_and_indices_follow(self, source: Path) -> None:
        everything, names = splits.read_manifest(source)
        evaluated, labels = splits.evaluated(everything, names)
        assert names == ["df", "mel", "nv"] and labels == ["mel", "nv"]
        assert all(item.group.startswith(labels[item.target]) for item in evaluated)

    def test_seeds_split_differently(self, source: Path) -> None:
        evaluated, _ = splits.evaluated(*splits.read_manifest(source))
        first, second = (splits.natural(evaluated, seed) for seed in (0, 1))
        assert cases(first, "test") != cases(second, "test")

    def test_shares(self, source: Path) -> None:
        natural = splits.natural(splits.evaluated(*splits.read_manifest(source))[0], 0)
        counts = {split: len(lesions(natural, split)) / len(lesions(natural)) for split in SPLITS}
        assert counts == pytest.approx({"training": 0.56, "validation": 0.14, "test": 0.3}, abs=0.05)


class TestFolders:
    def test_the_pretraining_centre_is_in_no_folder_that_is_evaluated(self, bench: Bench) -> None:
        everything, _ = splits.read_manifest(bench.args.source)
        seen = lesions(splits.pretraining(everything))
        for item in federations(bench.args, ["centre-2", "centre-3", "centre-5"]):
            sites = read_sites(bench.data(item.partition, item.seed))
            assert not {case.group for site in sites for split in SPLITS for case in site.splits[split]} & seen
            assert not {splits.PRETRAINING, item.partition} & {site.name for site in sites}

    def test_train_and_test_share_no_picture_by_content(self, bench: Bench) -> None:
        def content(sites: Sequence[Site], *names: str) -> set[bytes]:
            return {case.image.read_bytes() for site in sites for name in names for case in site.splits[name]}

        for partition in splits.PARTITIONS:
            sites = read_sites(bench.data(partition, 0))
            assert not content(sites, "training", "validation") & content(sites, "test")


def scores(values: Sequence[float], label: str = "nv", start: int = 0) -> list[CaseScore]:
    return [
        CaseScore("a", "test", f"{label}{start + index}", label, value, (0.3, 0.7))
        for index, value in enumerate(values)
    ]


class TestNumbers:
    def test_the_first_value_is_the_balanced_accuracy(self) -> None:
        found = [*scores([1, 1, 0, 1]), *scores([0, 1], "mel")]
        values = balanced(found, {item.case: item.case for item in found}, 200, 0)
        assert values.shape == (201,) and values[0] == pytest.approx(mean_score(found)) == pytest.approx(0.625)
        assert values[1:].mean() == pytest.approx(0.625, abs=0.05) and values[1:].std() > 0.1

    def test_pictures_of_a_lesion_are_drawn_together(self) -> None:
        found = scores([1, 0, 1, 0])
        apart = {item.case: item.case for item in found}
        together = {item.case: f"l{index // 2}" for index, item in enumerate(found)}
        assert balanced(found, apart, 100, 0).std() > 0.1 and balanced(found, together, 100, 0).std() == 0

    def test_the_same_lesions_are_drawn_for_every_method(self) -> None:
        first = scores([1, 0, 1, 0, 1])
        second = [CaseScore(i.site, i.split, i.case, i.label, 1 - i.value, i.probabilities) for i in reversed(first)]
        own = {item.case: item.case for item in first}
        assert np.allclose(balanced(first, own, 100, 3) + balanced(second, own, 100, 3), 1)

    def test_slope_per_decade(self) -> None:
        sizes = {"a": 1_000, "b": 10_000, "c": 1_000_000}
        column = {name: np.array([0.5, 0.5, 0.5]) + 0.04 * np.log10(size) for name, size in sizes.items()}
        found = slope(column, sizes)
        assert (found.value, found.low, found.high) == pytest.approx((0.04, 0.04, 0.04))

    def test_seeds_are_averaged(self) -> None:
        experiments = [Experiment("iid", "random", "lora", "federated", seed, scores([seed, seed])) for seed in (0, 1)]
        column = columns_of(experiments, {"nv0": "0", "nv1": "1"}, 10)["iid", "random"]["lora"]
        assert np.allclose(column, 0.5)

    def test_left_out_centres_come_together_and_are_missing_until_all_are_there(self) -> None:
        experiments = [
            Experiment("left out", "generic", "lora", "federated", 0, [CaseScore(site, "test", site, "nv", 1.0)])
            for site in ("a", "b")
        ]
        assert joined(experiments[:1], 2) == []
        assert [len(experiment.scores) for experiment in joined(experiments, 2)] == [2]


def test_tables(tmp_path: Path) -> None:
    sizes, found = {"lora": 10_000, "full_ft": 1_000_000}, [*scores([1, 1, 0, 1]), *scores([0, 1], "mel")]
    worse = [*scores([0, 1, 0, 1]), *scores([0, 1], "mel")]
    experiments = [
        Experiment("iid", start, method, "federated", seed, found if start == "medical" else worse)
        for start in ("generic", "medical")
        for method in sizes
        for seed in (0, 1)
    ]
    write_tables(experiments, sizes, {item.case: item.case for item in found}, ["mel", "nv"], tmp_path)
    content = json.loads((tmp_path / "table.json").read_text())
    assert len(content["experiments"]) == len(experiments) == len((tmp_path / "table.csv").read_text().splitlines()) - 1
    assert [item["value"] for item in content["slopes"]] == [0, 0]
    gains = {item["method"]: item["value"] for item in content["medical_minus_generic"]}
    assert gains == pytest.approx({"lora": 0.125, "full_ft": 0.125, "mean": 0.125})
    assert "| iid | medical | full_ft | federated | 1,000,000 | 2 | 0.625 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.png").stat().st_size > 10_000
