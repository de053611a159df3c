"""Runs: what is set stays set, every value is checked by its field, and old files are read."""

import json
from dataclasses import replace

import pytest

from fedpeft.common.field_types import LATER
from fedpeft.config.adapters import LoRA, option_fields
from fedpeft.config.datasets import DATASETS
from fedpeft.config.methods import METHODS, Adapter
from fedpeft.config.run import Run, RunConfig, make_run
from fedpeft.config.sections import SECTION_OF, SECTIONS
from fedpeft.config.seeds import seed_of
from fedpeft.training.engine.schedule import learning_rate_at

# As commit 959c00f wrote it into run.json.
FIRST = {
    "method": "flap_sam", "dataset": "phantom", "backbone": "sam_tiny", "classes": 2, "labels": ["organ", "lesion"],
    "rank": 8, "side": 96, "seed": 0, "rounds": 10, "local_epochs": 0.5, "batch": 2, "stack": 5, "stride": 5,
    "negatives": 0.5, "learning_rate": 0.005, "weight_decay": 0.1, "warmup": 0.05, "decay": "cosine",
    "dice_weight": 0.8, "weights": "cases", "codec": "float32", "prompts": 0, "blocks": 0, "initial": "generic",
    "loss": "balanced", "patience": 0, "precision": "float32",
}  # fmt: skip


def test_defaults_come_from_the_entries():
    run = make_run("flap_sam", "phantom", "sam_vit_b")
    assert (run.option("rank"), run.model.image_size, run.training.learning_rate) == (32, 224, 8e-4)
    assert run.data.labels == () and run.with_(classes=2).data.labels == ("organ", "lesion")
    assert make_run("full_ft", "phantom", "sam_vit_b").training.learning_rate == pytest.approx(8e-4 * 0.15)


def test_json_round_trip():
    run = make_run("pdec_ft", "folder", "sam_tiny", classes=3, seed=7, codec="bfloat16")
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    config = run.config
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_holds_what_was_set_and_nothing_else():
    config = RunConfig.of(method="flap_sam", dataset="phantom", rounds=3, rank=4)
    assert config.to_dict() == {
        "model": {"method": "flap_sam", "options": {"rank": 4}},
        "data": {"dataset": "phantom"},
        "training": {},
        "federation": {"rounds": 3},
    }
    assert config.training.batch is None and config.with_(rounds=None, rank=None).federation.rounds is None


def test_a_field_is_declared_once_and_has_help():
    assert len(SECTION_OF) == sum(len(section.model_fields) for section in SECTIONS.values())
    assert not SECTION_OF.keys() & option_fields().keys()
    for section in SECTIONS.values():
        assert all(field.description for field in section.model_fields.values())
    assert all(field.description for _, field in option_fields().values())


def test_the_schema_has_every_field_with_its_help_and_default():
    schema = RunConfig.model_json_schema()["$defs"]
    fields = {name: field for section in schema.values() for name, field in section["properties"].items()}
    assert fields.keys() == SECTION_OF.keys()
    assert fields["rounds"]["default"] == 10 and fields["rounds"]["description"]
    assert list(METHODS) == fields["method"]["anyOf"][0]["enum"]
    options = fields["options"]["anyOf"][0]["properties"]
    assert options.keys() == option_fields().keys() and options["experts"]["minimum"] == 2


@pytest.mark.parametrize(
    ("fields", "section", "name"),
    [
        ({"rank": 32}, None, "rank"),
        ({"image_size": 224}, "model", "image_size"),
        ({"learning_rate": 0.01}, "training", "learning_rate"),
    ],
)
def test_another_method_never_changes_what_was_set(fields, section, name):
    run = make_run("flap_sam", "phantom", **fields)
    for method, entry in METHODS.items():
        if "segmentation" in entry.tasks:
            other = run.with_(method=method)
            if section:
                assert getattr(getattr(other, section), name) == fields[name]
            elif name in entry.options:
                assert other.option(name) == fields[name]
            assert other.with_(method="flap_sam") == run


def test_what_was_not_set_follows_the_method_and_the_backbone():
    run = make_run("flap_sam", "folder", "sam_vit_b")
    samed = run.with_(method="samed")
    assert (samed.option("rank"), samed.model.image_size, samed.upscaling) == (4, 512, (64, 32))
    assert samed.with_(method="flap_sam") == run
    assert run.with_(method="dec_ft").training.learning_rate == pytest.approx(4e-4)
    based = run.with_(base_learning_rate=0.01)
    assert based.with_(method="dec_ft").training.learning_rate == pytest.approx(5e-3)
    tiny = run.with_(backbone="sam_tiny")
    assert (tiny.option("rank"), tiny.model.image_size, tiny.training.learning_rate) == (8, 96, 2e-3)


def test_an_option_is_set_and_not_set_any_more():
    assert make_run("mole", "phantom", experts=4).with_(experts=None).option("experts") == 3
    assert make_run("flap_sam", "phantom", dropout=0.5, rslora=None).with_(dropout=None).option("dropout") == 0


def test_rslora_scales_alpha():
    with pytest.raises(ValueError, match="run: rslora is True, expected with alpha"):
        make_run("flap_sam", "phantom", rslora=True)
    assert make_run("flap_sam", "phantom", rslora=True, alpha=16).option("rslora")


def test_options_belong_to_the_method():
    run = make_run("full_ft", "phantom", rank=32)
    assert run.option("rank") is None and run.with_(method="flap_sam").option("rank") == 32
    shallow = make_run("sba", "images", "vit_tiny", classes=3)
    assert shallow.blocks == 3 and make_run("lora", "images", "vit_tiny", classes=3).blocks == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("image_size", 100),
        ("stride", 6),
        ("site_weighting", "mine"),
        ("codec", "int3"),
        ("classes", 0),
        ("dice_weight", 1.5),
        ("warmup", 1.0),
        ("learning_rate", -1.0),
        ("rank", 0),
        ("dropout", 1.0),
        ("alpha", float("inf")),
        ("labels", ("organ", "organ")),
        ("warmup_steps", -1),
        ("decay_epochs", 0.0),
        ("weight_decay_on", "vectors"),
        ("loss_size", "quarter"),
        ("site_weighting", "published"),
    ],
)
def test_out_of_range_values_are_named(field, value):
    with pytest.raises(ValueError, match=rf"^run: {field} is .*, expected ") as caught:
        make_run("flap_sam", "phantom", **{"classes": 2} | {field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"method": "magic"}, {"backbone": "sam_vit_z"}])
def test_unknown_entries_list_the_known(change):
    with pytest.raises(ValueError, match="known: "):
        make_run(**{"method": "flap_sam", "dataset": "phantom"} | change)


@pytest.mark.parametrize(("field", "value"), [("path", "/tmp/x"), ("rounds", "10"), ("rounds", True), ("rank", 1.5)])
def test_a_job_cannot_smuggle_fields_or_types(field, value):
    with pytest.raises(ValueError, match=field):
        Run.from_dict({"method": "flap_sam", "dataset": "phantom", field: value})
    section = SECTION_OF.get(field, "model")
    content = {field: value} if field != "rank" else {"options": {field: value}}
    nested = {"model": {"method": "flap_sam"}, "data": {"dataset": "phantom"}}
    with pytest.raises(ValueError, match=field):
        Run.from_dict(nested | {section: nested.get(section, {}) | content})


@pytest.mark.parametrize("content", [None, "flap_sam", [1], {"model": None}, FIRST | {"method": ["flap_sam"]}])
def test_what_is_no_run_is_refused_in_a_line(content):
    with pytest.raises(ValueError, match=r"^run(: \w+)? is .*, expected "):
        Run.from_dict(content)


def test_a_run_of_the_first_version_is_read():
    run = Run.from_dict(FIRST)
    assert run == make_run("flap_sam", "phantom", "sam_tiny", classes=2, local_epochs=0.5, batch=2, learning_rate=5e-3)
    old = FIRST | {"method": "adapters", "dataset": "images", "backbone": "vit_tiny", "labels": [], "side": 64}
    assert Run.from_dict(old | {"rank": 6}).option("width") == 6


def test_a_fingerprint_covers_every_value():
    run = make_run("flap_sam", "phantom")
    others = [run.with_(rounds=11), run.with_(rank=31), run.with_(seed=1), run.with_(stride=4)]
    assert len({item.fingerprint for item in (run, *others)}) == 5
    assert run.fingerprint == Run.from_dict(run.to_dict()).fingerprint
    assert run.with_(alpha=16).fingerprint == run.with_(alpha=16.0).fingerprint


# Fingerprints of version 0.2.0 before it knew the fields that are marked as later ones.
FINGERPRINTS = {
    "flap_sam": "acc898b200f09042c8d1e264cd1e06e50a0480ed180e10bc71758f31457aaad8",
    "samed": "4fc26dcc0ba75be9d91999dc5bd44594d34431277210421ec56b133da59ca2de",
}


@pytest.mark.parametrize("method", FINGERPRINTS)
def test_a_later_field_changes_a_fingerprint_only_where_it_is_set(method):
    run = make_run(method, "phantom", classes=2)
    assert run.fingerprint == FINGERPRINTS[method]
    later = {
        "weight_decay_on": "all",
        "warmup_steps": 0,
        "decay_epochs": 1.0,
        "loss_size": "decoder",
        "site_weights": {"a": 1.0},
        "stack_ends": "repeat",
        "preprocessing": "samed",
        "augmentation": "none",
        "server_optimiser": "nesterov",
        "server_learning_rate": 0.5,
    }
    marked = {name for section in SECTIONS.values() for name, f in section.model_fields.items() if LATER in f.metadata}
    assert later.keys() <= marked
    changed = {run.with_(**{name: value}).fingerprint for name, value in later.items()}
    assert len({run.fingerprint, *changed}) == 1 + len(later)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("site-B=0.18,site-A=0.03", (("site-A", 0.03), ("site-B", 0.18))),
        ({"b": 2, "a": 1.5}, (("a", 1.5), ("b", 2.0))),
        ("a=b=1", (("a=b", 1.0),)),
    ],
)
def test_site_weights_are_given_as_text_or_an_object(given, expected):
    run = make_run("flap_sam", "phantom", site_weights=given)
    assert run.federation.site_weights == expected and run.site_weights == dict(expected)
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    assert run.to_dict()["federation"]["site_weights"] == dict(expected)


@pytest.mark.parametrize(
    "given", ["", "a", "a=", "a=0", "a=-1", "a=1,a=2", "=1", "a=inf", "a=nan", {}, {"a": 0}, 3, ["a"]]
)
def test_site_weights_out_of_range_are_named(given):
    with pytest.raises(ValueError, match="^run: site_weights is .*, expected weights above 0 by name, each name once"):
        make_run("flap_sam", "phantom", site_weights=given)


def test_a_fingerprint_covers_the_methods_entry(monkeypatch):
    before = make_run("lora_plus", "phantom").fingerprint
    slower = replace(METHODS["lora_plus"], rates=(("*.lora.*.B", 8.0),))
    monkeypatch.setitem(METHODS._entries, "lora_plus", slower)
    assert make_run("lora_plus", "phantom").fingerprint != before


def test_data_without_an_entry_are_normalised_as_plain_data():
    assert make_run("flap_sam", "liver").preprocessing == DATASETS["folder"].preprocessing
    assert make_run("flap_sam", "ixi").preprocessing == DATASETS["ixi"].preprocessing


def test_a_methods_adapters_agree_on_an_option():
    with pytest.raises(ValueError, match=r"one rank, but its adapters give \[4, 16\]"):
        replace(METHODS["lora_mlp"], adapters=(Adapter(LoRA(rank=4), "a"), Adapter(LoRA(rank=16), "b")))


def test_seeds_differ_by_every_part_and_are_stable():
    seeds = {seed_of(0, "site-1", 0), seed_of(1, "site-1", 0), seed_of(0, "site-2", 0), seed_of(0, "site-1", 1)}
    assert len(seeds) == 4
    assert seed_of(0, "site-1", 0) == 2635062178199976256
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("schedule", "progress", "share"),
    [
        ("cosine", 0.05, 1.0),
        ("cosine", 0.525, 0.5),
        ("cosine", 1.0, 0.0),
        ("power7", 0.05, 1.0),
        ("power7", 0.525, 0.5**7),
        ("power7", 1.0, 0.0),
    ],
)
def test_the_learning_rate_falls_over_the_run(schedule, progress, share):
    run = make_run("flap_sam", "folder", "sam_tiny", lr_schedule=schedule, warmup=0.05)
    assert learning_rate_at(run, progress) == pytest.approx(share * run.training.learning_rate, abs=1e-12)
    assert learning_rate_at(run, 0.025) == pytest.approx(run.training.learning_rate / 2)
