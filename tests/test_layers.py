"""The order of the layers: imports run one way, and third-party packages stay where they belong."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "custom" / "fedpeft"
# Layer -> the layers that it imports, by a statement or by a class path in a string. Each must exist, and no other.
EDGES = {
    "common": set(),
    "config": {"common"},
    "algebra": {"common"},
    "models": {"algebra", "common", "config"},
    "data": {"common", "config"},
    "tasks": {"common", "config", "data"},
    "training": {"algebra", "common", "config", "data", "models", "tasks"},
    "flare": {"algebra", "config", "data", "models", "tasks", "training"},
    "deploy": {"algebra", "common", "config", "data", "flare", "training"},
    "study": {"common", "config", "data", "flare", "models", "tasks", "training"},
    "cli": {"common", "config", "data", "deploy", "flare", "models", "study", "tasks", "training"},
}
# From the first to the last: a layer imports earlier ones alone. models and data do not know each other.
ORDER = ("common", "config", "algebra", "models", "data", "tasks", "training", "flare", "deploy", "study", "cli")
# Layer -> third-party packages. The standard library is always allowed.
PACKAGES = {
    "common": {"torch", "safetensors", "pydantic", "pydantic_core"},
    "config": {"pydantic"},
    "algebra": {"torch"},
    # And segment_anything, which models/sam/parts.py loads without torchvision.
    "models": {"torch", "safetensors"},
    "data": {"torch", "monai", "nibabel", "numpy", "pydantic", "safetensors", "scipy", "PIL"},
    "tasks": {"torch", "monai", "numpy", "scipy"},
    "training": {"torch", "pydantic", "pydantic_core"},
    "flare": {"torch", "nvflare"},
    "deploy": {"torch", "nvflare", "cryptography", "packaging"},
    "study": {"torch", "numpy", "matplotlib", "psutil"},
    "cli": {"rich", "pydantic"},
}
# A class or module path of ours inside a string: FLARE's configurations name what they build so.
PATH = re.compile(r"^fedpeft(\.\w+)+$")


@cache
def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file names: in imports anywhere, and in strings that are paths of ours."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write it in full"
            names.add(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PATH.match(node.value):
            names.add(node.value)
    return names


def files(layer: str) -> list[Path]:
    return sorted((PACKAGE / layer).rglob("*.py"))


def test_every_layer_is_known():
    assert {folder.name for folder in PACKAGE.iterdir() if list(folder.rglob("*.py"))} == set(ORDER) == set(EDGES)


def test_the_permitted_edges_run_one_way():
    for layer, others in EDGES.items():
        assert others <= set(ORDER[: ORDER.index(layer)]), layer
    assert "models" not in EDGES["data"] and "data" not in EDGES["models"]


@pytest.mark.parametrize("layer", ORDER)
def test_the_layers_import_what_is_permitted_and_nothing_is_permitted_that_none_imports(layer):
    found = {}
    for file in files(layer):
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "fedpeft" and len(parts) > 1 and parts[1] != layer:
                found.setdefault(parts[1], f"{file} names {name}")
    assert not {where for other, where in found.items() if other not in EDGES[layer]}
    assert EDGES[layer] <= found.keys()


@pytest.mark.parametrize("layer", PACKAGES)
def test_third_party_packages_stay_in_their_layers(layer):
    known, foreign = set(sys.stdlib_module_names) | {"fedpeft"}, set()
    for file in files(layer):
        foreign |= {name.split(".")[0] for name in imports(file)} - known
    assert foreign == PACKAGES[layer]


@pytest.mark.parametrize("folder", sorted({file.parent for file in PACKAGE.rglob("*.py")}), ids=lambda path: path.name)
def test_folders_and_modules_stay_small(folder):
    modules = sorted(folder.glob("*.py"))
    assert len(modules) <= 15, f"{folder} holds {len(modules)} modules"
    for module in modules:
        assert len(module.read_text().splitlines()) <= 300, f"{module} has more than 300 lines"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_unpickles_or_runs_text(path):
    """No eval, exec or pickle.load; torch.load only with weights_only; torch.save for other programs' files alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in {"eval", "exec", "pickle.load", "pickle.loads"}, f"{path}:{node.lineno} {name}"
        assert name != "torch.save" or path == PACKAGE / "models" / "peers" / "writing.py", f"{path}:{node.lineno}"
        if name == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
