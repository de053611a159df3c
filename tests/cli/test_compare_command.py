"""What the options of ``fedpeft compare`` ask for, and how it shows that it works."""

import argparse
import io
import json
import shutil

import pytest

from fedpeft.cli import compare as cli
from fedpeft.cli.run_options import add_run_options, given
from fedpeft.config.presets import RECIPES
from fedpeft.config.run import RunConfig
from fedpeft.study.plan.experiments import Experiment, label
from fedpeft.study.run.progress import Progress


class Asked(Exception):
    """Ends the command where the comparison would begin."""


@pytest.fixture
def asked(fedpeft, small_phantom, tmp_path, monkeypatch):
    """A function of options that gives the runs and settings to compare."""

    def compare(plan, runs, settings, report):
        raise Asked(runs, settings)

    monkeypatch.setattr(cli, "compare_runs", compare)

    def call(*options):
        with pytest.raises(Asked) as caught:
            fedpeft("compare", "--data", small_phantom, "--out", tmp_path / "out", *options)
        return caught.value.args

    return call


def test_without_options_it_is_the_jobs_recipe_in_all_settings(asked):
    runs, settings = asked()
    assert [(label(run), run.training.seed, run.federation.rounds, run.training.learning_rate) for run in runs] == [
        ("flap_sam", 0, 10, 5e-3)
    ]
    assert settings == ["local", "federated", "centralized"]


@pytest.mark.parametrize(
    ("options", "labels", "settings"),
    [
        (["--ablation", "rank"], ["flap_sam-r4", "flap_sam-r16", "flap_sam-r32"], ["federated"]),
        (["--ablation", "adapter"], ["flap_sam", "dora", "mole"], ["federated"]),
        (["--ablation", "rank", "--ranks", "8,16", "--settings", "local"], ["flap_sam", "flap_sam-r16"], ["local"]),
        (["--ablation", "rank", "--rank", "2"], ["flap_sam-r2"], ["federated"]),
        (["--ablation", "rank", "--methods", "dora"], ["dora-r4", "dora-r16", "dora-r32"], ["federated"]),
        (
            ["--ranks", "4", "--methods", "flap_sam,dec_ft", "--settings", "local,centralized"],
            ["flap_sam-r4", "dec_ft"],
            ["local", "centralized"],
        ),
    ],
)
def test_ablations_and_ranks(asked, options, labels, settings):
    runs, found = asked(*options)
    assert ([label(run) for run in runs], found) == (labels, settings)


def test_seeds_make_runs(asked):
    assert [(label(run), run.training.seed) for run in asked("--methods", "flap_sam,dora", "--seed", "0,3")[0]] == [
        ("flap_sam", 0),
        ("flap_sam", 3),
        ("dora", 0),
        ("dora", 3),
    ]


def test_a_learning_rate_replaces_that_of_a_recipe_with_one_for_all(asked, monkeypatch):
    paper = RunConfig.of(method="flap_sam", dataset="kits19", backbone="sam_tiny", classes=2, learning_rate=8e-4)
    monkeypatch.setattr("fedpeft.cli.compare.recipe", lambda data: paper)
    runs, _ = asked("--methods", "flap_sam,full_ft", "--learning-rate", "1e-3")
    assert [run.training.learning_rate for run in runs] == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [5e-3, 7.5e-4, 2.5e-3]),
        (["--learning-rate", "1e-2"], [1e-2, 1.5e-3, 5e-3]),
        (["--learning-rate", "dec_ft=1e-3,full_ft=2e-5"], [5e-3, 2e-5, 1e-3]),
        (["--training", "paper"], [8e-4, 8e-4, 8e-4]),
        (["--training", "paper", "--learning-rate", "1e-3"], [1e-3, 1e-3, 1e-3]),
        (["--training", "paper", "--learning-rate", "full_ft=1e-5"], [8e-4, 1e-5, 8e-4]),
        (["--training", "efficient"], [2e-3, 3e-4, 1e-3]),
        (["--training", "efficient", "--learning-rate", "1e-2"], [1e-2, 1.5e-3, 5e-3]),
    ],
)
def test_learning_rates(asked, options, expected):
    runs, _ = asked("--methods", "flap_sam,full_ft,dec_ft", *options)
    assert [run.training.learning_rate for run in runs] == pytest.approx(expected)


def test_a_recipe_gives_what_is_not_said(asked):
    ((paper,), _), ((changed,), _), ((efficient,), _) = (
        asked("--training", "paper"),
        asked("--training", "paper", "--rounds", 3, "--site-weighting", "cases", "--lr-schedule", "cosine"),
        asked("--training", "efficient"),
    )
    assert paper == asked()[0][0].with_(**RECIPES["paper"].fields)
    assert changed == paper.with_(rounds=3, site_weighting="cases", lr_schedule="cosine")
    assert efficient == asked()[0][0].with_(**RECIPES["efficient"].fields)


def test_the_authors_recipe_runs_the_entries_of_their_code_and_says_so(asked, capsys):
    runs, _ = asked(
        "--training", "authors", "--methods", "flap_sam,attn_ft,pdec_ft", "--learning-rate", "flap_sam=1e-4"
    )
    assert [label(run) for run in runs] == ["flap_sam_random_b", "attn_ft_head", "pdec_ft"]
    assert [run.training.learning_rate for run in runs] == [1e-4, 8e-4, 8e-4]
    notes = capsys.readouterr().err.splitlines()
    assert notes == [
        "note: the recipe authors runs flap_sam_random_b for flap_sam, attn_ft_head for attn_ft",
        "note: no weight is published for site-1, site-2, site-3: sites are weighted by their slices instead",
    ]
    assert {run.federation.site_weighting for run in runs} == {"slices"}
    own = RECIPES["authors"].fields | {"site_weighting": "slices"}
    assert runs[2] == asked("--methods", "pdec_ft")[0][0].with_(**own)


@pytest.mark.parametrize("training", RECIPES)
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--method", "lora_ft", "--rounds", 7, "--rank", 2),
        ("--backbone", "sam_vit_l", "--site-weighting", "cases", "--image-size", 128),
    ],
)
def test_a_rendered_job_is_the_compared_run(asked, fedpeft, tmp_path, training, options):
    methods = ["--methods" if option == "--method" else option for option in options]
    ((compared,), _) = asked("--training", training, "--checkpoint", tmp_path / "sam.pth", *methods)
    name = ("--name", "mine", "--out", tmp_path / "jobs")
    code, _, err = fedpeft("job", "render", "flap_sam_phantom", "--training", training, *options, *name)
    assert code == 0, err
    assert rendered(tmp_path / "jobs" / "mine") == compared


def rendered(folder):
    parts = json.loads((folder / "app" / "config" / "config_fed_server.json").read_text())["components"]
    return RunConfig.from_dict(next(part["args"]["run"] for part in parts if part["id"] == "run")).resolve()


def test_a_job_by_the_authors_recipe_says_what_it_runs(fedpeft, tmp_path):
    arguments = ("--training", "authors", "--name", "mine", "--out", tmp_path)
    code, _, err = fedpeft("job", "render", "flap_sam_phantom", *arguments)
    assert code == 0 and err.splitlines() == [
        "note: the recipe authors runs flap_sam_random_b for flap_sam",
        "note: no weight is published for phantom: sites are weighted by their slices instead",
    ]
    code, _, err = fedpeft("job", "render", "flap_sam_kits19", *arguments)
    assert code == 0 and err.count("\n") == 1
    run = rendered(tmp_path / "mine")
    assert (run.federation.site_weighting, run.site_weights["site-F"]) == ("published", 0.49)
    assert (run.model.method, run.data.preprocessing, run.training.batch) == ("flap_sam_random_b", "authors", 24)


@pytest.fixture
def first(finished, tmp_path):
    """A finished run of another method than the job's, which saw its images otherwise."""
    out = tmp_path / "first"
    shutil.copytree(finished.path, out)
    content = json.loads((out / "run.json").read_text())
    content["run"]["data"] |= {"preprocessing": "authors", "stack_ends": "repeat"}
    content["run"]["model"]["method"] = "flap_sam_random_b"
    (out / "run.json").write_text(json.dumps(content))
    return out


@pytest.mark.parametrize(
    ("options", "method", "preprocessing", "ends"),
    [
        ([], "flap_sam_random_b", "authors", "repeat"),
        (["--methods", "flap_sam"], "flap_sam", "authors", "repeat"),
        (["--stack-ends", "inside"], "flap_sam_random_b", "authors", "inside"),
        (["--preprocessing", "standard"], "flap_sam_random_b", "standard", "inside"),
        (["--training", "efficient"], "flap_sam_random_b", "standard", "inside"),
        (["--training", "authors", "--methods", "flap_sam"], "flap_sam_random_b", "authors", "repeat"),
    ],
)
def test_an_initial_run_gives_method_and_preprocessing(asked, first, options, method, preprocessing, ends):
    ((run,), _) = asked("--initial-run", first, *options)
    assert (run.model.method, run.data.preprocessing, run.data.stack_ends) == (method, preprocessing, ends)


def test_show_names_the_initial_run_as_the_origin(fedpeft, small_phantom, first):
    code, text, err = fedpeft("compare", "--data", small_phantom, "--initial-run", first, "--show", "--json")
    assert code == 0, err
    (run,) = json.loads(text)["runs"]
    origins = {field["field"]: field["from"] for field in run["fields"] if field["part"] != "preprocessing"}
    assert {origins[name] for name in ("method", "preprocessing", "stack_ends")} == {"initial run"}


def test_the_authors_recipe_also_replaces_an_ablations_methods(asked):
    runs, _ = asked("--training", "authors", "--ablation", "adapter")
    assert [label(run) for run in runs] == ["flap_sam_random_b", "dora_frozen", "mole"]
    runs, _ = asked("--training", "authors", "--methods", "attn_ft,attn_ft_head")
    assert [label(run) for run in runs] == ["attn_ft_head"]


def test_given_weights_replace_those_of_a_recipe_without_a_note(asked, capsys):
    weights = "site-1=1,site-2=2,site-3=0.5"
    ((run,), _) = asked("--training", "authors", "--site-weights", weights, "--methods", "pdec_ft")
    assert run.site_weights == {"site-1": 1, "site-2": 2, "site-3": 0.5}
    ((run,), _) = asked("--training", "authors", "--site-weighting", "cases", "--methods", "pdec_ft")
    assert run.federation.site_weighting == "cases" and not capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "method", "backbone"), [("samed", "samed", "sam_vit_b"), ("efficient", "flap_sam", "sam_tiny")]
)
def test_a_recipe_may_bring_its_method_and_backbone(asked, name, method, backbone):
    ((run,), _) = asked("--training", name, "--initial", "random")
    assert (label(run), run.model.backbone) == (method, backbone)
    ((other,), _) = asked("--training", name, "--methods", "pdec_ft", "--backbone", "sam_tiny", "--image-size", "64")
    assert (label(other), other.model.backbone, other.model.image_size) == ("pdec_ft", "sam_tiny", 64)


def test_old_names_of_options_work_with_a_note(capsys):
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    old = ["--weights", "uniform", "--negatives", "0.25", "--decay", "power7", "--side", "32"]
    new = ["--site-weighting", "uniform", "--background-ratio", "0.25", "--lr-schedule", "power7", "--image-size", "32"]
    assert given(parser.parse_args(old)) == given(parser.parse_args(new))
    notes = capsys.readouterr().err.splitlines()
    renamed = zip(old[::2], new[::2], notes, strict=True)
    assert all(f"{name} is called {other} now" in note for name, other, note in renamed)
    assert len(notes) == 4 and not any(f"{name} " in parser.format_help() for name in old[::2])


@pytest.mark.parametrize("name", ["stack", "weight_decay", "warmup", "dice_weight"])
def test_every_field_has_an_option(asked, name):
    value = {"stack": 7}.get(name, 0.5)
    ((run,), _) = asked(f"--{name.replace('_', '-')}", value)
    assert run == asked()[0][0].with_(**{name: value})


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("--learning-rate", "fast", "number above 0"),
        ("--learning-rate", "0", "number above 0"),
        ("--learning-rate", "nan", "number above 0"),
        ("--learning-rate", "flap_sam=", "number above 0"),
        ("--learning-rate", "flapsam=1e-3", "unknown method 'flapsam'"),
        ("--learning-rate", "flap_sam=1e-3,flap_sam=2e-3", "two learning rates"),
        ("--ranks", "4,0", "1 or more"),
        ("--ranks", "four", "list of numbers"),
        ("--seed", "-1", "0 or more"),
        ("--ablation", "method", "invalid choice"),
        ("--training", "fast", "invalid choice"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(fedpeft, option, value, part):
    code, out, err = fedpeft("compare", "--data", "d", "--out", "o", f"{option}={value}")
    assert (code, out) == (2, "")
    assert option in err and part in err


def test_a_learning_rate_for_a_method_that_is_not_compared_is_refused(fedpeft, small_phantom, tmp_path):
    code, _, err = fedpeft("compare", "--data", small_phantom, "--out", tmp_path, "--learning-rate", "dec_ft=1e-3")
    assert code == 1
    assert "dec_ft" in err and "flap_sam" in err


def test_one_form_of_the_rank_is_enough(fedpeft):
    code, _, err = fedpeft("compare", "--data", "d", "--out", "o", "--rank", "4", "--ranks", "8")
    assert code == 2 and "not allowed with" in err


def test_the_help_says_what_each_preset_means(fedpeft):
    _, out, _ = fedpeft("compare", "--help")
    text = " ".join(out.split())
    assert all(
        part in text
        for part in (
            "rank: FLAP-SAM at ranks",
            "adapter: LoRA, DoRA and MoLE",
            "paper: the FLAP-SAM paper's",
            "efficient: what we found better",
        )
    )


class Screen(io.StringIO):
    """A terminal of its own."""

    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Screen])
def test_progress_is_a_line_an_event_or_one_line_on_a_terminal(finished, stream, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    experiment, written = Experiment(finished.run, "local", "site-1"), stream()
    with cli._shown(written) as report:
        progress = Progress([experiment], 1, report)
        progress.advanced(experiment, 0)
        progress.finished(experiment, 3.0)
    text = written.getvalue()
    if stream is Screen:
        assert "1/1 experiments" in text and "\x1b[" in text
        assert text.replace("\r", "").count("\n") <= 1
    else:
        begin, end = text.splitlines()
        assert begin.startswith("0/1 experiments, ") and begin.endswith("| flap_sam, seed 0, local site-1: begins")
        assert (
            end == "1/1 experiments, 0:00:00 gone, about 0:00:00 left | flap_sam, seed 0, local site-1: finished in 3 s"
        )
