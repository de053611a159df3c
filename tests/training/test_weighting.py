"""A site's weight: by its report, by the data set's published constants, or as set."""

import pytest
from toy_parameters import RUN

from fedpeft.config.datasets import DATASETS
from fedpeft.config.run import make_run
from fedpeft.config.strategies import SITE_WEIGHTINGS
from fedpeft.data.sources import ixi, kits19, prostate
from fedpeft.training.server.weighting import REPORTED, check_sites, weight_of, weights_of

REPORTS = {"a": {"cases": 3, "slices": 30}, "b": {"cases": 1, "slices": 90}}
KITS = make_run("flap_sam", "kits19", "sam_tiny", classes=2, site_weighting="published")
# As the FLAP-SAM paper's code numbers its clients.
SITES = {"kits19": kits19.SITES, "prostate": tuple(prostate.HOSPITALS), "ixi": ixi.SITES}
CONSTANTS = {
    "kits19": [0.03, 0.18, 0.15, 0.10, 0.05, 0.49],
    "prostate": [0.15, 0.26, 0.31, 0.08, 0.13, 0.07],
    "ixi": [0.55, 0.32, 0.13],
}


def test_every_weighting_of_a_run_is_known():
    assert {*REPORTED} == {name for name, entry in SITE_WEIGHTINGS.items() if not entry.published}
    assert "published" in SITE_WEIGHTINGS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.75, 0.25]),
        ({"site_weighting": "uniform"}, [0.5, 0.5]),
        ({"site_weighting": "slices"}, [0.25, 0.75]),
        ({"site_weights": {"a": 3, "b": 1, "c": 5}}, [0.75, 0.25]),
        ({"site_weights": {"a": 1.0, "b": 4.0}, "site_weighting": "uniform"}, [0.2, 0.8]),
        # Set weights replace published ones, which this data set does not even have.
        ({"site_weights": {"a": 1.0, "b": 4.0}, "site_weighting": "published"}, [0.2, 0.8]),
    ],
)
def test_weights_are_normalised_over_the_sites_of_the_round(fields, expected):
    run = RUN.with_(**fields)
    check_sites(run, REPORTS)
    assert weights_of(run, REPORTS) == expected


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_published_constants_belong_to_the_sites_of_the_source_in_the_codes_order(name):
    weights = DATASETS[name].site_weights
    assert tuple(weights) == SITES[name] and list(weights.values()) == CONSTANTS[name]
    run = make_run("flap_sam", name, "sam_tiny", classes=1, site_weighting="published")
    found = weights_of(run, {site: {} for site in SITES[name]})
    assert found == pytest.approx(CONSTANTS[name]) and sum(found) == pytest.approx(1)
    first, second, *_ = SITES[name]
    two = weights_of(run, {first: {}, second: {}})
    assert two[0] / two[1] == pytest.approx(CONSTANTS[name][0] / CONSTANTS[name][1]) and sum(two) == pytest.approx(1)


@pytest.mark.parametrize(
    ("run", "part"),
    [
        (KITS, "published for kits19 are those of site-A, .*: use --site-weighting slices, or give --site-weights"),
        (RUN.with_(site_weights={"site-A": 1.0}), "set are those of site-A: name every site in --site-weights"),
    ],
)
def test_a_site_without_a_weight_is_named_with_the_remedy(run, part):
    check_sites(run, ["site-A"])
    for call in (
        lambda: check_sites(run, ["site-A", "north"]),
        lambda: weight_of(run, "north", {}),
        lambda: weights_of(run, {"site-A": {}, "north": {}}),
    ):
        with pytest.raises(ValueError, match=f"^north: it has no weight; {part}"):
            call()


def test_data_without_published_weights_are_refused_when_the_run_is_made():
    with pytest.raises(ValueError, match="no weights are published for phantom; use --site-weighting slices"):
        RUN.with_(site_weighting="published")
    with pytest.raises(ValueError, match="no weights are published for liver"):
        make_run("flap_sam", "liver", site_weighting="published")


def test_a_report_without_slices_is_refused_where_they_count():
    assert weight_of(RUN, "a", {"cases": 3}) == 3
    with pytest.raises(ValueError, match="^a: its report has no number of slices.*install the server's version"):
        weight_of(RUN.with_(site_weighting="slices"), "a", {"cases": 3})


def test_a_site_that_is_alone_needs_no_weight():
    """Local and centralised training are federations of one site, whose name no table has."""
    assert weights_of(KITS, {"pool": {}}) == [1.0]
