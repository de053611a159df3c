"""Rows of data sets: values are checked by field, and survive run.json."""

import json

import pytest

from fedpeft.config.datasets import DATASETS, dataset
from fedpeft.config.preprocessing import PREPROCESSINGS, Preprocessing, Window
from fedpeft.config.run import Run, make_run

# What run.json of the first version holds.
FIRST = {"orientation": "RAS", "scope": "site", "clip": [-3.0, 6.0], "foreground": 0.05, "percentile": 99.5}


@pytest.mark.parametrize("name", DATASETS)
def test_preprocessing_survives_json(name):
    entry = dataset(name)
    for called in ("standard", *PREPROCESSINGS, *entry.published):
        preprocessing = entry.preprocessing_called(called)
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing
        # A run can be compared and hashed.
        assert hash(preprocessing) == hash(preprocessing.model_copy())
    assert entry.preprocessing_called("standard") == entry.preprocessing


def test_what_an_earlier_version_wrote_means_what_it_meant():
    assert Preprocessing.from_dict(FIRST) == Preprocessing() == dataset("phantom").preprocessing
    assert dataset("folder").preprocessing == Preprocessing(scope="volume")
    assert (Preprocessing().windows, Preprocessing().stack_range, Preprocessing().fit) == ((), "kept", "aspect")
    assert Preprocessing().rule == "mean and std of voxels > min + 0.05 (p99.5 - min)"


def test_the_papers_rows():
    kits, ixi, prostate = (dataset(name) for name in ("kits19", "ixi", "prostate"))
    assert [name for _, name in kits.labels] == ["background", "kidney", "tumour"]
    assert (kits.preprocessing.percentiles, kits.preprocessing.scale, kits.preprocessing.scope) == (
        (5.0, 95.0),
        "zscore",
        "site",
    )
    assert (ixi.preprocessing.scale, ixi.preprocessing.scope) == ("minmax", "volume")
    assert ixi.preprocessing.canvas == (64, 64)
    assert prostate.preprocessing == Preprocessing(foreground=None, clip=None)
    assert len({row.preprocessing.rule for row in (kits, ixi, prostate, dataset("folder"))}) == 4


@pytest.mark.parametrize(("field", "value"), [
    ("orientation", "RAA"), ("scope", "world"), ("clip", (1.0, 0.0)), ("clip", (1.0,)), ("foreground", 1.0),
    ("percentile", 0), ("percentiles", (95.0, 5.0)), ("percentiles", (-1.0, 5.0)), ("percentiles", (5.0, 101.0)),
    ("scale", "softmax"), ("canvas", (64,)), ("canvas", (64, 0)), ("canvas", (64.0, 64.0)),
])  # fmt: skip
def test_out_of_range_values_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field}(\.\d)? is"):
        Preprocessing(**{field: value})


@pytest.mark.parametrize(("values", "text"), [
    (FIRST | {"colour": 1}, "unknown field 'colour'"), (FIRST | {"clip": 3}, "clip is 3, expected a list"),
    ([], "expected an object"),
    (FIRST | {"clip": [2, 1]}, "clip is"), (FIRST | {"percentile": "99"}, "percentile is '99', expected a number"),
])  # fmt: skip
def test_what_is_no_preprocessing_is_refused(values, text):
    with pytest.raises(ValueError, match=text):
        Preprocessing.from_dict(values)


# Data set, name -> clips to constants, own percentiles, scale, stack_range, fit.
@pytest.mark.parametrize(("name", "called", "expected"), [
    ("kits19", "authors", (7, None, "zscore", "minmax", "stretch")),
    ("ixi", "authors", (0, None, "minmax", "minmax", "stretch")),
    ("prostate", "authors", (0, (0.0, 99.0), "minmax", "minmax", "stretch")),
    ("prostate", "ma_sam", (0, (0.0, 99.0), "minmax", "minmax", "stretch")),
    ("folder", "authors", (0, (0.0, 99.0), "minmax", "minmax", "stretch")),
    ("kits19", "ma_sam", (1, None, "minmax", "minmax", "stretch")),
    ("of_no_entry", "samed", (1, None, "minmax", "kept", "stretch")),
])  # fmt: skip
def test_published_preprocessing(name, called, expected):
    found = make_run("flap_sam", name, preprocessing=called).preprocessing
    assert (len(found.windows), found.percentiles, found.scale, found.stack_range, found.fit) == expected
    # The site's own statistics follow another rule and are not used.
    assert (found.scope, found.foreground, found.clip) == ("volume", None, None)


def test_constants_belong_to_a_site_or_to_all():
    kits = dataset("kits19").preprocessing_called("authors")
    first, last = kits.window("site-A"), kits.window("site-F")
    assert (first.low, first.high, round(first.mean, 3), round(first.std, 3)) == (-66, 208, 100.545, 61.677)
    assert (last.low, last.high, round(last.mean, 3), round(last.std, 3)) == (-82, 288, 105.312, 76.499)
    assert kits.window("") == kits.window("hospital") and round(kits.window("").high, 2) == 266.67
    assert Preprocessing(windows=(first,)).window("hospital") is None
    for called, low, high in (("samed", -125, 275), ("ma_sam", -200, 250)):
        for site in ("", "hospital"):
            window = PREPROCESSINGS[called].window(site)
            assert (window.low, window.high) == (low, high)
    both = Preprocessing(windows=(Window(low=1, high=2, site="a"), Window(low=3, high=4)))
    assert (both.window("a").low, both.window("b").low) == (1, 3)


@pytest.mark.parametrize(("window", "text"), [
    ({"low": 2.0, "high": 2.0}, "windows.0 is"), ({"low": 2.0}, "windows.0.high is missing"),
    ({"low": 1.0, "high": 2.0, "std": 0.0}, "windows.0.std is 0.0, expected above 0"),
    ({"low": float("nan"), "high": 2.0}, "windows.0.low is nan, expected a finite number"),
    ({"low": 1.0, "high": 2.0, "place": "a"}, "unknown field 'windows.0.place'"),
])  # fmt: skip
def test_wrong_constants_are_named(window, text):
    with pytest.raises(ValueError, match=text):
        Preprocessing.from_dict({"windows": [window]})


def test_fields_of_runs_written_before_mean_what_they_meant():
    run = make_run("flap_sam", "kits19")
    values = run.to_dict()
    for name in ("preprocessing", "stack_ends", "augmentation"):
        del values["data"][name]
    assert Run.from_dict(values) == run and run.preprocessing == dataset("kits19").preprocessing
    assert (run.data.preprocessing, run.data.stack_ends, run.data.augmentation) == ("standard", "inside", "standard")


@pytest.mark.parametrize(("fields", "text"), [
    ({"preprocessing": "text"}, "data set kits19: preprocessing is 'text', expected one of authors, ma_sam, paper"),
    ({"augmentation": "mixup"}, "augmentation is 'mixup', expected an augmentation; known: standard, ma_sam"),
    ({"augmentation": "ma_sam"}, "expected another, since preprocessing 'standard' does not scale intensities to 0 to"),
    ({"stack_ends": "outside"}, "stack_ends is 'outside', expected one of 'inside' or 'repeat'"),
])  # fmt: skip
def test_values_that_do_not_fit_are_refused(fields, text):
    with pytest.raises(ValueError, match=text):
        make_run("flap_sam", "kits19", **fields)
    assert make_run("flap_sam", "kits19", preprocessing="authors", augmentation="ma_sam").fingerprint


def test_the_papers_text_is_the_standard_in_the_input_format_of_ma_sam():
    standard, text = (
        make_run("flap_sam", "kits19", preprocessing=name).preprocessing for name in ("standard", "paper")
    )
    assert text == standard.model_copy(update={"stack_range": "minmax", "fit": "stretch"}) != standard
    assert text.rule == standard.rule
