"""A registry's entries are found by name, added by one function, and discovered in a package when first asked for."""

import sys

import pytest

from fedpeft.common.registry import Registry

MODULE = """
import made_up
made_up.registered.append(__name__)
made_up.SHAPES.register(__name__.rpartition(".")[2], len(made_up.registered))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, one of them in a sub-package, that register themselves."""
    inner = tmp_path / "made_up" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "made_up" / "__init__.py").write_text(
        "from fedpeft.common.registry import Registry\nregistered = []\nSHAPES = Registry('shape', __name__)\n"
    )
    (inner / "__init__.py").touch()
    (tmp_path / "made_up" / "circle.py").write_text(MODULE)
    (inner / "square.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
        del sys.modules[name]


def test_modules_of_the_package_register_themselves_when_an_entry_is_first_looked_up(package):
    import made_up

    assert made_up.registered == []
    assert made_up.SHAPES.find("square") == 2 and list(made_up.SHAPES) == ["circle", "square"]
    assert len(made_up.SHAPES) == 2 and "circle" in made_up.SHAPES and made_up.SHAPES.get("line") is None
    assert made_up.registered == ["made_up.circle", "made_up.inner.square"]


def test_an_unknown_name_is_told_with_those_that_exist(package):
    import made_up

    with pytest.raises(ValueError, match="unknown shape 'line'; known: circle, square"):
        made_up.SHAPES.find("line")


def test_a_name_is_taken_once():
    shapes: Registry[int] = Registry("shape")
    assert shapes.register("circle", 1) == 1
    with pytest.raises(ValueError, match="shape 'circle' is registered already; give the new one another name"):
        shapes.register("circle", 2)
    assert dict(shapes) == {"circle": 1}
