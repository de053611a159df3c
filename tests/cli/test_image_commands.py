"""The commands that prepare and check images, from what is typed to what lies on disk."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SITES = {"a": 12, "b": 9}


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def tree(tmp_path) -> Path:
    """<site>/<class>/ folders, and a table of the same images with three of a patient."""
    lines = []
    for number in range(sum(SITES.values())):
        site, label = "a" if number < SITES["a"] else "b", ("mel", "nv", "nv")[number % 3]
        draw(tmp_path / "source" / site / label / f"p{number}.jpg", number)
        lines.append((f"{site}/{label}/p{number}.jpg", label, site, f"patient {number // 3}"))
    with (tmp_path / "source" / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "label", "site", "who"), *lines])
    return tmp_path / "source"


@pytest.fixture
def isic(tmp_path) -> Path:
    lines = [(f"ISIC_{n}", n % 8, n % 2, ("train", "train", "train", "test")[n // 2 % 4]) for n in range(16)]
    for number, line in enumerate(lines):
        draw(tmp_path / "isic" / "images" / f"{line[0]}.jpg", number)
    with (tmp_path / "isic" / "train_test_split").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "target", "center", "fold"), *lines])
    with (tmp_path / "isic" / "lesions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("image", "lesion_id"), *((line[0], f"L{n // 4}") for n, line in enumerate(lines))]
        )
    return tmp_path / "isic"


def is_png(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 100


@pytest.mark.parametrize("name", ["images", "isic2019"])
def test_help_has_examples(fedpeft, name):
    code, out, _ = fedpeft("data", "prepare", name, "--help")
    assert code == 0 and f"fedpeft data prepare {name} --source" in out.split("examples:")[1]
    assert name in fedpeft("data", "prepare", "--help")[1]


def test_a_tree_is_prepared_registered_plotted_and_sound(fedpeft, tree, tmp_path):
    out, workspace = tmp_path / "out", tmp_path / "workspace"
    words = ["data", "prepare", "images", "--source", tree, "--out", out]
    code, text, err = fedpeft(*words, "--register", workspace, "--json")
    assert code == 0, err
    made = json.loads(text)
    assert made["sites"] == [
        {"site": "a", "training": 8, "validation": 1, "test": 3},
        {"site": "b", "training": 6, "validation": 1, "test": 2},
    ]  # fmt: skip
    assert made["notes"][-1] == f"who has what: {out / 'partition.png'}" and is_png(out / "partition.png")
    registered = json.loads((workspace / "local" / "fedpeft_site.json").read_text())["datasets"]
    assert registered == {"images": str(out / "{site}" / "datalist.json")}
    code, text, _ = fedpeft("data", "check", out)
    assert code == 0 and "6 x 7" in text and "2 sites, 0 faults, 0 warnings" in text
    code, text, _ = fedpeft("data", "check", out, "--json")
    assert json.loads(text)["sites"][1]["classes"]["nv"]["training"] == 4


def test_a_table_is_prepared_and_dealt_out(fedpeft, tree, tmp_path):
    words = ["data", "prepare", "images", "--source", tree, "--table", tree / "table.csv", "--group-column", "who",
             "--labels", "nv,mel", "--partition", "dirichlet", "--sites", 3, "--alpha", 0.3, "--seed", 2]  # fmt: skip
    for name in ("one", "two"):
        code, text, err = fedpeft(*words, "--out", tmp_path / name)
        assert code == 0, err
    assert "21 cases dealt out to 3 sites (dirichlet, alpha 0.3, seed 2)" in text
    assert "lesion_clean_test.csv" in text
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert sum(path.suffix == ".jpg" for path in files) == 21
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
    datalist = json.loads((tmp_path / "one" / "site-2" / "datalist.json").read_text())
    assert datalist["labels"] == {"0": "nv", "1": "mel"} and datalist["name"] == "images"


def test_isic2019_is_prepared(fedpeft, isic, tmp_path):
    words = ["data", "prepare", "isic2019", "--source", isic, "--lesions", isic / "lesions.csv", "--out"]
    code, text, err = fedpeft(*words, tmp_path / "out", "--validation", 0.2, "--register", tmp_path, "--json")
    assert code == 0, err
    made = json.loads(text)
    assert [site["site"] for site in made["sites"]] == ["centre-0", "centre-1"]
    assert sum(site["test"] for site in made["sites"]) == 4 and all(site["validation"] for site in made["sites"])
    assert "isic2019" in json.loads((tmp_path / "local" / "fedpeft_site.json").read_text())["datasets"]
    assert any("lesion_clean_test.csv: 0 of 4" in note for note in made["notes"])
    (isic / "images" / "ISIC_0.jpg").unlink()
    words.append(tmp_path / "partial")
    code, _, err = fedpeft(*words)
    assert code == 1 and "ISIC_0.jpg is not in" in err and "--partial" in err
    code, text, err = fedpeft(*words, "--partial")
    assert code == 0 and "1 of 16 cases are not in" in text, err


@pytest.mark.parametrize(("words", "text"), [
    (["--partition", "natural", "--sites", 3], "--sites 3 means nothing with --partition natural"),
    (["--alpha", 0.2], "--alpha 0.2 means nothing with --partition natural"),
    (["--partition", "iid", "--sites", 3, "--alpha", 1], "--alpha 1.0 means nothing with --partition iid"),
    (["--partition", "iid"], "--partition iid needs --sites N"),
    (["--partition", "iid", "--sites", 0], "iid"),
    (["--partition", "dirichlet", "--sites", 2, "--alpha", 0], "alpha above 0"),
    (["--partition", "iid", "--sites", 99], "for 99 sites"),
    (["--group-column", "who"], "--group-column names a column; expected --table"),
    (["--validation", 0.1], "--validation"),
    (["--labels", "nv,bcc"], "class is 'mel', expected nv, bcc"),
    (["--table", "{source}/none.csv"], "none.csv: not found"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_and_nothing_is_written(fedpeft, tree, tmp_path, words, text):
    words = [str(word).format(source=tree) for word in words]
    code, out, err = fedpeft("data", "prepare", "images", "--source", tree, "--out", tmp_path / "out", *words)
    assert code == 1 and text in err and "Traceback" not in err and out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("words", [
    ["--tree", "{class}/{site}"], ["--tree", "{class}", "--table", "t.csv"], ["--labels", "nv"], ["--labels", "nv,nv"],
    ["--partition", "random"],
])  # fmt: skip
def test_what_cannot_be_parsed_shows_usage(fedpeft, tree, tmp_path, words):
    code, _, err = fedpeft("data", "prepare", "images", "--source", tree, "--out", tmp_path / "out", *words)
    assert code == 2 and err.startswith("usage: fedpeft data prepare images")


def test_check_names_a_damaged_image(fedpeft, tree, tmp_path):
    assert fedpeft("data", "prepare", "images", "--source", tree, "--out", tmp_path / "out")[0] == 0
    image = next((tmp_path / "out" / "b" / "images").iterdir())
    image.write_bytes(image.read_bytes()[:-20])
    code, text, _ = fedpeft("data", "check", tmp_path / "out")
    assert code == 1 and f"fault: {image}: cannot be read as JPEG or PNG" in text
