"""Every field of a run has an option of ``compare`` and of ``job render``, takes effect, and has a place in jobs.

The test walks the declarations, so a new field is tested from the day on which it is declared.
"""

import json
from typing import Literal, get_args, get_origin

import pytest

from fedpeft.common.registry import Registry
from fedpeft.config.adapters import option_fields
from fedpeft.config.methods import METHODS
from fedpeft.config.sections import SECTION_OF, SECTIONS
from fedpeft.config.tasks import TASKS

# What compare takes from the data: a folder of sites has its own name and labels.
OF_THE_DATA = {"dataset", "classes", "labels"}
# Where compare's option has another name than the field: it takes several values, or sets either rate.
SEVERAL = {"method": "--methods", "rank": "--ranks", "base_learning_rate": "--learning-rate"}
# Its option sets the rate of one method alone in this form.
OF_COMPARE = {"learning_rate": [["flap_sam=0.25"]]}
# Valid values of fields whose type does not tell them.
EXAMPLES = {"dataset": ["mine"], "labels": ["a"], "preprocessing": ["authors"], "site_weights": ["north=0.4,south=0.6"]}
# Options without which some values are refused; those that do not exist are left out.
TOGETHER = ([], ["--alpha", "8"], ["--preprocessing", "authors"], ["--server-optimiser", "adam"])
# "options" stands for the options of adapters, which are walked by themselves.
FIELDS = [*(name for name in SECTION_OF if name != "options"), *option_fields()]


def declaration(name):
    return SECTIONS[SECTION_OF[name]].model_fields[name] if name in SECTION_OF else option_fields()[name][1]


def candidates(name):
    """Arguments of the field's option, most of them valid."""
    field = declaration(name)
    if name in EXAMPLES:
        return [[text] for text in EXAMPLES[name]]
    registry = next((item for item in field.metadata if isinstance(item, Registry)), None)
    if registry is not None:
        return [[text] for text in registry]
    if get_origin(field.annotation) is Literal:
        return [[text] for text in get_args(field.annotation)]
    kinds = {field.annotation, *get_args(field.annotation)}
    if bool in kinds:
        return [[]]
    numbers = {int: ["6", "2", "4", "128"], float: ["0.25", "0.5", "1.5", "3.0"]}
    for kind, texts in numbers.items():
        if kind in kinds:
            return [[text] for text in texts]
    pytest.fail(f"{name} is {field.annotation}: add a valid text of its option to EXAMPLES")


def method_for(name):
    """The method and job with which a field is tested: an adapter's option needs a method that has it."""
    entry = next((entry for entry in METHODS.values() if name in entry.options), METHODS["flap_sam"])
    job = "flap_sam_phantom" if "segmentation" in entry.tasks else "lora_images"
    return entry.name, job


def flag(name):
    return f"--{name.replace('_', '-')}"


@pytest.fixture
def shown(fedpeft):
    """The value and origin of a field that ``compare`` would train with, None where it refuses its options."""

    def call(name, *options):
        code, out, err = fedpeft("compare", "--show", "--json", *options)
        if code != 0:
            return None
        return next(
            (item["value"], item["from"]) for item in json.loads(out)["runs"][0]["fields"] if item["field"] == name
        )

    return call


@pytest.fixture
def rendered(fedpeft, tmp_path):
    """The value of a field in a job that ``job render`` writes, for server and sites; None where it refuses or the
    job has none."""

    def call(name, job, *options):
        code, *_ = fedpeft("job", "render", job, "--name", "mine", "--out", tmp_path, *options)
        if code != 0:
            return None
        found = []
        for config in ("config_fed_server.json", "config_fed_client.json"):
            components = json.loads((tmp_path / "mine" / "app" / "config" / config).read_text())["components"]
            (run,) = [part["args"]["run"] for part in components if part["id"] == "run"]
            section = run[SECTION_OF.get(name, "model")]
            found.append((section if name in SECTION_OF else section.get("options", {})).get(name))
        assert found[0] == found[1]
        return found[0]

    return call


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in OF_THE_DATA])
def test_every_field_has_an_option_of_compare_that_takes_effect(shown, name):
    method, _ = method_for(name)
    fixed = [] if name == "method" else ["--methods", method]
    before = shown(name, *fixed)
    assert before is not None and before[1] != "option"
    changed = []
    for value in OF_COMPARE.get(name) or candidates(name):
        for more in TOGETHER:
            after = shown(name, *fixed, SEVERAL.get(name, flag(name)), *value, *more)
            changed += [after] if after is not None and after[0] != before[0] else []
    assert changed, f"no value of compare {SEVERAL.get(name, flag(name))} changes {name}"
    assert {origin for _, origin in changed} == {"option"}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_an_option_of_job_render_and_a_place_in_the_job(rendered, name):
    method, job = method_for(name)
    fixed = [] if name == "method" else ["--method", method]
    before = rendered(name, job, *fixed)
    found = [rendered(name, job, *fixed, flag(name), *value, *more) for value in candidates(name) for more in TOGETHER]
    assert any(content not in (None, before) for content in found), f"job render {flag(name)} does not reach the job"


def test_what_compare_takes_from_the_data_is_what_the_data_say(shown, small_phantom):
    for name in OF_THE_DATA:
        assert shown(name, "--data", small_phantom)[1] == "data"


def test_the_fields_are_those_of_all_sections_and_adapters():
    """Else the walk above could pass without walking."""
    assert len(FIELDS) == len(set(FIELDS)) >= 30
    assert {section for name, section in SECTION_OF.items() if name in FIELDS} == set(SECTIONS)
    assert {name for entry in METHODS.values() for name in entry.options} <= set(FIELDS)
    assert {"rank", "prompts", "rounds", "lr_schedule"} <= set(FIELDS) and len(TASKS) == 3
