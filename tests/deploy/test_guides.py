"""The guides for IT: what they name exists, and they stay short enough to be read."""

import re
import shlex
from argparse import ArgumentParser

import pytest
from made_kits import REPOSITORY

from fedpeft.cli import main as cli
from fedpeft.deploy.doctor.examine import CHECKS
from fedpeft.training.client.permit import Permit
from fedpeft.training.client.site_file import Checkpoint, SiteFile, read_site_file

GUIDES = {"admin/README.md": 3000, "poc/README.md": 350}


def text(name):
    return (REPOSITORY / name).read_text()


def blocks(name):
    return re.findall(r"```(\w*)\n(.*?)```", text(name), re.DOTALL)


COMMANDS = [
    (name, line)
    for name in GUIDES
    for _, block in blocks(name)
    for line in block.splitlines()
    if line.startswith("fedpeft ")
]


@pytest.mark.parametrize(("name", "words"), GUIDES.items())
def test_a_guide_is_short(name, words):
    assert len(text(name).split()) <= words


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[line[:60] for _, line in COMMANDS])
def test_every_command_of_a_guide_exists_with_its_options(monkeypatch, name, line):
    """Parsed, not run."""
    parsed = []

    def parse(self, arguments):
        parsed.append(real(self, arguments))
        raise SystemExit(0)

    real = ArgumentParser.parse_args
    monkeypatch.setattr(ArgumentParser, "parse_args", parse)
    with pytest.raises(SystemExit) as end:
        cli.main(shlex.split(line, comments=True)[1:])
    assert end.value.code == 0 and parsed


def test_the_site_file_of_the_guide_is_valid_and_explains_every_field(tmp_path):
    (example,) = [block for language, block in blocks("admin/README.md") if language == "json"]
    file = tmp_path / "site.json"
    file.write_text(example)
    read_site_file(file, "hospital-1").admit("flap_sam", 10_000_000)
    section = text("admin/README.md").split("## The site file")[1].split("\n## ")[0]
    fields = {**SiteFile.model_fields, **Checkpoint.model_fields, **Permit.model_fields}
    assert not [field for field in fields if f"`{field}`" not in section and f'"{field}"' not in section]


def test_the_guide_names_every_check_of_the_doctor():
    section = text("admin/README.md").split("## Is this machine ready?")[1].split("\n## ")[0]
    assert not [check.name for check in CHECKS if check.name not in section]


@pytest.mark.parametrize("name", GUIDES)
def test_links_lead_somewhere(name):
    folder = (REPOSITORY / name).parent
    anchors = {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall("^#+ (.*)$", text(name), re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text(name)):
        assert target[1:] in anchors if target.startswith("#") else (folder / target).exists(), target
