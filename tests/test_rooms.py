"""The order of the rooms: imports run one way, and third-party packages stay where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "custom" / "fedpeft"
# Room -> the rooms it may import.
ORDER = {
    "spec": set(),
    "algebra": {"spec"},
    "model": {"spec", "algebra"},
    "data": {"spec", "algebra"},
    "train": {"spec", "algebra", "model", "data"},
    "flare": {"spec", "algebra", "model", "data", "train"},
    "study": {"spec", "algebra", "model", "data", "train", "flare"},
    "cli": {"spec", "algebra", "model", "data", "train", "flare", "study"},
}
# Room -> third-party packages. Standard library is always allowed.
PACKAGES = {
    "spec": set(),
    "algebra": {"torch"},
    "model": {"torch", "safetensors", "segment_anything"},
    "data": {"torch", "monai", "nibabel", "numpy", "safetensors"},
    "train": {"torch", "monai", "safetensors", "numpy"},
    "flare": {"torch", "nvflare"},
    "study": {"torch", "numpy", "matplotlib", "psutil", "cryptography", "packaging"},
    "cli": {"rich"},
}


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write it in full"
            names.add(node.module)
    return names


def files(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def test_every_room_is_known():
    assert {folder.name for folder in PACKAGE.iterdir() if list(folder.rglob("*.py"))} == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_imports_run_one_way(room):
    for file in files(room):
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "fedpeft" and len(parts) > 1:
                assert parts[1] in ORDER[room] | {room}, f"{file} imports {name}"


@pytest.mark.parametrize("room", PACKAGES)
def test_third_party_packages_stay_in_their_rooms(room):
    import sys

    for file in files(room):
        found = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"fedpeft"}
        assert found <= PACKAGES[room], f"{file} imports {found - PACKAGES[room]}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_unpickles_or_runs_text(path):
    """No eval, exec or pickle.load; torch.load only with weights_only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in {"eval", "exec", "pickle.load", "pickle.loads", "torch.save"}, f"{path}:{node.lineno} {name}"
        if name == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
