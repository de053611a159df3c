"""Rows of data sets: values are checked by field, and survive run.json."""

import json

import pytest

from fedpeft.config.datasets import DATASETS, Preprocessing, dataset

# What run.json of the first version holds.
FIRST = {"orientation": "RAS", "scope": "site", "clip": [-3.0, 6.0], "foreground": 0.05, "percentile": 99.5}


@pytest.mark.parametrize("name", DATASETS)
def test_preprocessing_survives_json(name):
    preprocessing = dataset(name).preprocessing
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def test_what_an_earlier_version_wrote_means_what_it_meant():
    assert Preprocessing.from_dict(FIRST) == Preprocessing() == dataset("phantom").preprocessing
    assert dataset("folder").preprocessing == Preprocessing(scope="volume")
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
