"""fedpeft: hospitals fine-tune one foundation model together and exchange a few megabytes of adapters."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpeft.study.api import compare, evaluate, load_run, render_job

__version__ = "0.2.0"
__all__ = ["__version__", "compare", "evaluate", "load_run", "render_job"]


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: torch and FLARE take seconds."""
    if name in __all__:
        return getattr(import_module("fedpeft.study.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, including functions that are not imported yet."""
    return sorted({*globals(), *__all__})
