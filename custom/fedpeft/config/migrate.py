"""Convert runs that versions before 0.2 wrote into run folders and jobs: flat, complete, with the fields' old names."""

from collections.abc import Mapping
from typing import Any

from fedpeft.config.adapters import option_fields
from fedpeft.config.methods import METHODS
from fedpeft.config.sections import SECTION_OF, SECTIONS

# Old name -> new name.
RENAMED = {
    "side": "image_size",
    "negatives": "background_ratio",
    "weights": "site_weighting",
    "decay": "lr_schedule",
}
# Fields in which 0 meant "the method's own, or none".
OPTIONS = ("rank", "prompts", "blocks")


def is_flat(values: Mapping[str, Any]) -> bool:
    """Whether a run is written in the form of versions before 0.2."""
    return bool(values) and not set(values) & set(SECTIONS)


def nested(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same run in sections.

    Raises:
        ValueError: a field is unknown.
    """
    found: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    known = [*SECTION_OF, *RENAMED, *OPTIONS]
    for old, value in values.items():
        name = RENAMED.get(old, old)
        if old in OPTIONS:
            found["model"].setdefault("options", {}).update(_option(values.get("method"), old, value))
        elif name in SECTION_OF:
            found[SECTION_OF[name]][name] = value
        else:
            raise ValueError(f"run: unknown field {old!r}; known: {', '.join(known)}")
    if found["training"].get("learning_rate") == 0:
        del found["training"]["learning_rate"]
    if found["model"].get("image_size") == 0:
        del found["model"]["image_size"]
    return found


def _option(method: Any, name: str, value: Any) -> dict[str, Any]:
    """The option under its present name, if the method has it: the rank of bottlenecks is now called width."""
    entry = METHODS.get(method) if isinstance(method, str) else None
    if entry is None or value == 0:
        return {}
    if name == "rank" and "width" in entry.options:
        name = "width"
    return {name: value} if name in entry.options and name in option_fields() else {}
