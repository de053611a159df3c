"""The arithmetic of the tables, against numbers by hand."""

from math import sqrt

import pytest
from made import HD95, scores_of, summary_of, with_distances

from fedpeft.models.payload import payload
from fedpeft.study.results.summary import summarise


def near(*values):
    return [pytest.approx(value, abs=1e-12) for value in values]


def sites(values):
    return list(values["sites"].values())


def test_means_over_cases_then_classes_then_sites(run):
    (found,) = summary_of(scores_of(run))
    settings = found["settings"]
    assert list(settings) == ["initial", "local", "local_everywhere", "federated", "centralized"]
    assert list(settings["local"]["sites"]) == ["north", "south"]
    # The second class has half the first one's Dice, so a mean is three quarters of the first one's.
    assert sites(settings["initial"]) == near(0.0, 0.075)
    assert sites(settings["local"]) == near(0.375, 0.45)
    assert sites(settings["local_everywhere"]) == near((0.375 + 0.15) / 2, (0.075 + 0.45) / 2)
    assert sites(settings["federated"]) == near(0.525, 0.375)
    assert sites(settings["centralized"]) == near(0.525, 0.0)
    averages = [settings[name]["average"] for name in settings]
    assert averages == near(0.0375, 0.4125, 0.2625, 0.45, 0.2625)
    assert {item["sd"] for item in settings.values()} == {None}


def test_gain_is_federated_minus_local_at_home(run):
    (found,) = summary_of(scores_of(run))
    gain = found["gain"]
    assert sites(gain) == near(0.15, -0.075)
    assert gain["average"] == pytest.approx(0.0375)
    # North gains 0.15 in both cases; south loses 0.15 or nothing: 0, 1 or 2 of the lost in a quarter, half, quarter.
    assert (gain["low"], gain["high"]) == pytest.approx((0.0, 0.075))


def test_ratio_is_federated_over_centralized(run):
    (found,) = summary_of(scores_of(run))
    assert sites(found["ratio"]) == [pytest.approx(1.0), None]
    assert found["ratio"]["average"] == pytest.approx(0.45 / 0.2625)


def test_seeds_are_averaged_and_spread(run):
    (found,) = summary_of(scores_of(run), scores_of(run.with_(seed=5), 0.5))
    federated = found["settings"]["federated"]
    assert found["seeds"] == [0, 5]
    assert sites(federated) == near(0.525 * 0.75, 0.375 * 0.75)
    assert federated["seeds"] == near(0.45, 0.225)
    assert federated["average"] == pytest.approx(0.3375)
    assert federated["sd"] == pytest.approx(0.225 / sqrt(2))
    # Averaged over seeds before cases are resampled.
    assert (found["gain"]["low"], found["gain"]["high"]) == pytest.approx((0.0, 0.75 * 0.075))


def test_methods_and_ranks_are_apart(run):
    found = summary_of(scores_of(run), scores_of(run.with_(rank=4)), scores_of(run.with_(method="pdec_ft")))
    assert [(item["label"], item["method"], item["title"], item["rank"]) for item in found] == [
        ("flap_sam", "flap_sam", "FLAP-SAM", 8),
        ("flap_sam-r4", "flap_sam", "FLAP-SAM", 4),
        ("pdec_ft", "pdec_ft", "PDecFT", None),
    ]
    assert found[1]["trainable"] < found[0]["trainable"] < found[0]["total"]
    assert found[0]["total"] - found[1]["total"] == found[0]["trainable"] - found[1]["trainable"]


@pytest.mark.parametrize(
    ("settings", "gain", "ratio"),
    [
        (("initial", "federated"), False, False),
        (("initial", "local", "federated"), True, False),
        (("initial", "federated", "centralized"), False, True),
        (("initial", "local", "centralized"), False, False),
    ],
)
def test_only_what_was_compared(run, settings, gain, ratio):
    (found,) = summary_of(scores_of(run, settings=settings))
    assert (found["gain"] is not None, found["ratio"] is not None) == (gain, ratio)
    assert set(found["settings"]) - {"local_everywhere"} == set(settings)


@pytest.mark.parametrize(("codec", "width"), [("float32", 4), ("bfloat16", 2)])
def test_bytes_are_the_measured_ones_or_what_the_codec_would_send(run, codec, width):
    run = run.with_(codec=codec)
    (found,) = summary_of(scores_of(run))
    numbers = sum(
        a[0] * (a[1] if len(a) > 1 else 1) * (a[2] * a[3] if len(a) > 2 else 1) for a in payload(run).values()
    )
    assert found["trainable"] == numbers
    assert (found["bytes_up"], found["bytes_down"]) == (width * numbers, width * numbers)
    (found,) = summary_of(scores_of(run), traffic={"bytes_up": 10.0, "bytes_down": 20.0})
    assert (found["bytes_up"], found["bytes_down"]) == (10, 20)


def test_the_comparisons_own_scores_give_its_summary(compared):
    """What is in results.json is the summary of what is in its runs."""
    _, results = compared
    (item,) = results["summary"]
    models = results["runs"][0]["models"]
    home = [models[f"local/{site}"][site]["dice"] for site in ("site-1", "site-2")]
    assert sites(item["settings"]["local"]) == home
    assert item["settings"]["centralized"]["average"] == pytest.approx(
        sum(models["centralized"][site]["dice"] for site in ("site-1", "site-2")) / 2
    )
    assert summarise([], {}) == []


def test_a_further_metric_has_all_settings_with_intervals_and_changes_nothing_else(run):
    seeds = scores_of(run), scores_of(run.with_(seed=5), 0.5)
    (plain,) = summary_of(*seeds)
    (found,) = summary_of(*map(with_distances, seeds), scoring=HD95)
    metrics, empty = found.pop("metrics"), found.pop("one_mask_empty")
    assert found == plain
    assert [(name, item["title"], item["better"]) for name, item in metrics.items()] == [
        ("dice", "Dice", "higher"),
        ("hd95", "HD95 in mm", "lower"),
    ]
    spread = ("low", "high", "intervals")
    dice = {
        name: {k: v for k, v in item.items() if k not in spread} for name, item in metrics["dice"]["settings"].items()
    }
    assert dice == plain["settings"] and metrics["dice"]["federated_minus_local"] == plain["gain"]
    for name, item in metrics["hd95"]["settings"].items():
        own = metrics["dice"]["settings"][name]
        assert sites(item) == near(*(100 * (1 - value) for value in sites(own)))
        assert item["average"] == pytest.approx(100 * (1 - own["average"]))
        assert (item["low"], item["high"]) == pytest.approx((100 * (1 - own["high"]), 100 * (1 - own["low"])))
        assert item["intervals"].keys() == item["sites"].keys()
        for site, (low, high) in item["intervals"].items():
            assert low - 1e-9 <= item["sites"][site] <= high + 1e-9
    # Nearer is better, so a gain in Dice is a negative change.
    change = metrics["hd95"]["federated_minus_local"]
    assert change["average"] == pytest.approx(-100 * plain["gain"]["average"])
    assert (change["low"], change["high"]) == pytest.approx((-100 * plain["gain"]["high"], -100 * plain["gain"]["low"]))
    # Two cases a site, two classes, two seeds.
    assert empty["initial"] == {"count": 8, "of": 16}
    assert empty["local"] == empty["federated"] == {"count": 0, "of": 16}
    assert empty["local_everywhere"]["of"] == 32 and empty["centralized"] == {"count": 8, "of": 16}


def test_a_local_model_everywhere_has_the_interval_of_its_own_cases_everywhere(run):
    (found,) = summary_of(with_distances(scores_of(run)), scoring=HD95)
    item = found["metrics"]["dice"]["settings"]["local_everywhere"]
    # North's model: 0.6 or 0.4 at north and twice 0.2 at south, three quarters of it over the classes.
    assert item["intervals"]["north"] == pytest.approx([0.75 * (0.4 + 0.2) / 2, 0.75 * (0.6 + 0.2) / 2])
