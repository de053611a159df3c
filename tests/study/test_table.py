"""The table's form."""

import csv

import pytest
from made import HD95, scores_of, summary_of, with_distances

from fedpeft.study.results.metric_table import metric_table
from fedpeft.study.results.table import table, write_table
from fedpeft.study.results.table_form import signed


def test_a_block_for_each_method_a_line_for_each_setting_a_column_for_each_site(run):
    summary = summary_of(scores_of(run), traffic={"bytes_up": 263104.0, "bytes_down": 131552.0})
    summary[0] |= {"trainable": 1_712_488, "total": 91_766_838}
    found = table(summary, "test")
    assert found.columns == ["method", "setting", "north", "south", "Average", "trainable / total", "up + down a round"]
    assert found.blocks == [
        [["flap_sam", "Initial model", "0.0000", "0.0750", "0.0375", "", ""]],
        [
            ["flap_sam", "Local", "0.3750", "0.4500", "0.4125", "1.712M / 91.767M (1.9%)", ""],
            ["", "Local everywhere", "0.2625", "0.2625", "0.2625", "", ""],
            ["", "Federated", "0.5250", "0.3750", "0.4500", "", "263.1 + 131.6 kB"],
            ["", "Centralized", "0.5250", "0.0000", "0.2625", "", ""],
            ["", "Gain over local", "+0.1500", "-0.0750", "+0.0375", "", ""],
            ["", "95 % interval", "", "", "0.0000 to +0.0750", "", ""],
            ["", "Fed. / centralized", "1.000", "-", "1.714", "", ""],
        ],
    ]
    assert found.notes[0] == "Dice of test cases, seed 0. Average: mean of the sites."
    assert found.columns[-found.once :] == ["trainable / total", "up + down a round"]
    assert found.sizes == [
        "flap_sam: 1.712M of 91.767M parameters train (1.9%); a site sends + receives 263.1 + 131.6 kB a round.",
    ]


def test_seeds_are_named_with_their_spread(run):
    found = table(summary_of(scores_of(run), scores_of(run.with_(seed=1), 0.5)), "validation")
    assert found.blocks[1][0][4] == "0.3094 ± 0.1458"
    assert found.notes[0].startswith("Dice of validation cases, mean of seeds 0, 1, ± their standard deviation.")


def test_methods_that_start_alike_share_the_initial_models_line(run):
    parts = [scores_of(run.with_(method=method)) for method in ("flap_sam", "pdec_ft", "dec_ft")]
    found = table(summary_of(*parts), "test")
    assert [line[:2] for line in found.blocks[0]] == [["all", "Initial model"]]
    assert [block[0][0] for block in found.blocks[1:]] == ["flap_sam", "pdec_ft", "dec_ft"]
    parts[1] = scores_of(run.with_(method="pdec_ft"), 0.5)
    found = table(summary_of(*parts), "test")
    assert [line[0] for line in found.blocks[0]] == ["flap_sam, dec_ft", "pdec_ft"]


def test_words_are_explained_as_far_as_they_are_used(run):
    notes = table(summary_of(scores_of(run, settings=("initial", "federated"))), "test").notes
    assert len(notes) == 1 and not any("Gain" in note or "Local" in note for note in notes)
    assert any("Gain" in note for note in table(summary_of(scores_of(run)), "test").notes)


def test_large_uploads_are_in_megabytes(run):
    traffic = {"bytes_up": 6.85e6, "bytes_down": 5e5}
    summary = summary_of(scores_of(run, settings=("initial", "federated")), traffic=traffic)
    assert table(summary, "test").blocks[1][0][-1] == "6.85 + 0.5 MB"


def test_markdown_and_csv(run, tmp_path):
    summary = summary_of(scores_of(run), scores_of(run.with_(seed=1), 0.5))
    write_table(summary, "test", tmp_path)
    text = (tmp_path / "table.md").read_text()
    lines = text.splitlines()
    assert lines[:3] == [
        "| method | setting | north | south | Average | trainable / total | up + down a round |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| flap_sam | Initial model | 0.0000 | 0.0563 | 0.0281 ± 0.0133 |  |  |",
    ]
    assert text == table(summary, "test").markdown()
    with (tmp_path / "table.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["setting"] for line in lines] == [
        "initial",
        "local",
        "local_everywhere",
        "federated",
        "centralized",
        "gain",
        "ratio",
    ]
    assert lines[3] == {
        "label": "flap_sam",
        "method": "flap_sam",
        "title": "FLAP-SAM",
        "rank": "8",
        "seeds": "0 1",
        "setting": "federated",
        "north": "0.393750",
        "south": "0.281250",
        "average": "0.337500",
        "sd": "0.159099",
        "low": "",
        "high": "",
        "trainable": str(summary[0]["trainable"]),
        "total": str(summary[0]["total"]),
        "exchanged": "65776",
        "bytes_up": "263104",
        "bytes_down": "263104",
    }
    assert (lines[5]["average"], lines[5]["low"], lines[5]["high"], lines[6]["south"]) == (
        "0.028125",
        "0.000000",
        "0.056250",
        "",
    )


def test_an_interval_of_one_case_a_site_is_unknown(run):
    (summary,) = summary_of(scores_of(run))
    summary["gain"] |= {"low": 0.25, "high": 0.25}
    (interval,) = [line for block in table([summary], "test").blocks for line in block if line[1] == "95 % interval"]
    assert "unknown: one case a site" in interval


def test_further_metrics_have_a_table_with_units_directions_and_intervals(run):
    assert metric_table(summary_of(scores_of(run))) is None
    found = metric_table(summary_of(with_distances(scores_of(run)), scoring=HD95))
    assert found.columns == [
        "method",
        "setting",
        "Dice, higher is better",
        "HD95 in mm, lower is better",
        "one mask empty",
    ]
    ((initial, *_, change),) = found.blocks
    assert initial == ["flap_sam", "Initial model", "0.0375", "96.25", "4 of 8"]
    assert change == [
        "",
        "Federated minus local",
        "+0.0375 (0.0000 to +0.0750)",
        "-3.75 (-7.50 to 0.00)",
        "",
    ]
    assert any("image's diagonal" in note for note in found.notes)


def test_files_of_further_metrics_add_to_those_of_dice(run, tmp_path):
    summary, plain = summary_of(with_distances(scores_of(run)), scoring=HD95), summary_of(scores_of(run))
    write_table(summary, "test", tmp_path / "all")
    write_table(plain, "test", tmp_path / "dice")
    text, before = ((tmp_path / name / "table.md").read_text() for name in ("all", "dice"))
    assert text == before + "\n" + metric_table(summary).markdown()
    lines, dice = (list(csv.DictReader((tmp_path / name / "table.csv").open())) for name in ("all", "dice"))
    mine = [line for line in lines if line["metric"] == "dice"]
    spread = ("metric", "low", "high")
    assert [{k: v for k, v in line.items() if k not in spread} for line in mine] == [
        {k: v for k, v in line.items() if k not in spread} for line in dice
    ]
    assert all(line["low"] for line in mine if line["setting"] != "ratio")
    distances = {line["setting"]: line for line in lines if line["metric"] == "hd95"}
    assert list(distances) == [*(line["setting"] for line in dice[:-2]), "federated_minus_local"]
    assert (distances["federated"]["north"], distances["federated"]["average"]) == ("47.500000", "55.000000")
    assert distances["federated_minus_local"]["high"] == "0.000000"


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (-4.8e-6, 4, "0.0000"),
        (4.8e-6, 4, "0.0000"),
        (0.0, 2, "0.00"),
        (-0.00006, 4, "-0.0001"),
        (0.0375, 4, "+0.0375"),
        (-7.5, 2, "-7.50"),
    ],
)
def test_a_change_has_a_sign_unless_it_rounds_to_zero(value, digits, expected):
    assert signed(value, digits) == expected
