"""``fedpeft doctor``: exit code, JSON, and a table with the remedies under it."""

import json

import pytest

from fedpeft.flare.rendering import policy


@pytest.fixture
def site(tmp_path, small_images):
    """A function that writes a site file with some changes and gives its path."""

    def written(**changes):
        local = tmp_path / "work[space]" / "local"
        local.mkdir(parents=True, exist_ok=True)
        (local / "resources.json").write_text(json.dumps(policy()))
        values = {
            "version": 1,
            "datasets": {"images": str(small_images / "{site}" / "datalist.json")},
            "state_dir": str(tmp_path / "state"),
            "permit": {"methods": ["*"], "max_upload_bytes": None},
        }
        file = local / "fedpeft_site.json"
        file.write_text(json.dumps(values | changes))
        return file

    return written


def test_json_is_a_list_of_findings(fedpeft, site):
    code, out, err = fedpeft("doctor", "--site", site(), "--name", "site-1", "--disk", "0.001", "--json")
    findings = json.loads(out)
    assert (code, err) == (0, "")
    assert {frozenset(item) for item in findings} == {frozenset(("check", "state", "found", "expected", "remedy"))}
    states = {item["check"]: item["state"] for item in findings}
    assert states["data images"] == states["GPU"] == states["allow-list"] == "ok"
    assert states["certificate"] == "not checked"


@pytest.mark.parametrize(
    ("changes", "options", "check", "remedy"),
    [
        ({"device": "cuda:99"}, [], "GPU", 'correct "device"'),
        ({}, ["--disk", "1e9"], "disk state_dir", "free space"),
        ({}, ["--name", "site-9"], "data images", "prepare the data again"),
    ],
)
def test_a_red_line_fails_and_says_the_remedy(fedpeft, site, changes, options, check, remedy):
    arguments = ["doctor", "--site", site(**changes), "--name", "site-1", "--disk", "0.001", *options]
    code, out, _ = fedpeft(*arguments)
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.startswith("fault: "))
    assert line.startswith(f"fault: {check}: ") and remedy in line
    assert "work[space]" in out.replace("\n", "")
    assert out.rstrip().splitlines()[-1].split(", ")[2] == "1 fault"


def test_every_case_is_read_when_asked_for(fedpeft, site):
    code, out, _ = fedpeft("doctor", "--site", site(), "--name", "site-1", "--disk", "0.001", "--full", "--json")
    (data,) = (item for item in json.loads(out) if item["check"] == "data images")
    assert (code, data["state"]) == (0, "ok")
    assert "12 training, 3 validation, 6 test; every case read" in data["found"]


def test_help_has_an_example(fedpeft):
    code, out, _ = fedpeft("doctor", "--help")
    assert code == 0 and "fedpeft doctor --kit" in out
