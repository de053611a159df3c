"""Defaults of a run that depend on its method, backbone and data set."""

from collections.abc import Mapping
from typing import Any

from fedpeft.config.backbones import Backbone
from fedpeft.config.datasets import DATASETS
from fedpeft.config.methods import Method
from fedpeft.config.sections import Data
from fedpeft.config.tasks import TASKS


def fill(values: dict[str, dict[str, Any]], method: Method, backbone: Backbone) -> dict[str, str]:
    """Set, in place, the values that the entries give and that are not set.

    Returns:
        Field, or option of an adapter, that was set -> what gave the value: "method", "backbone" or "data set".
    """
    model, data, training = values["model"], values["data"], values["training"]
    origins: dict[str, str] = {}

    def give(section: dict[str, Any], name: str, value: Any, origin: str) -> None:
        if name not in section:
            section[name], origins[name] = value, origin

    size = min(method.image_size, backbone.published_image_size) or backbone.image_size
    give(model, "image_size", size, "method" if size == method.image_size else "backbone")
    model["options"], of_options = _options(model.get("options", {}), method, backbone)
    labels = _names(data["dataset"], data.get("classes", Data.model_fields["classes"].default))
    give(data, "labels", labels, "data set" if labels else "default")
    data["labels"] = tuple(data["labels"])
    give(training, "base_learning_rate", backbone.learning_rate, "backbone")
    rate = f"method: {method.rate:g} x base_learning_rate" if method.rate != 1 else "base_learning_rate"
    give(training, "learning_rate", training["base_learning_rate"] * method.rate, rate)
    return origins | of_options


def _options(given: Mapping[str, Any], method: Method, backbone: Backbone) -> tuple[dict[str, Any], dict[str, str]]:
    """The method's own options, from ``given``, else its entry, else the backbone; drops those of other methods.

    Returns:
        Option -> value, and option that is not in ``given`` -> what gave the value.
    """
    found = method.options | {name: value for name, value in given.items() if name in method.options}
    origins = {name: "method" for name in found if name not in given}
    for name in ("rank", "width"):
        if name in found and found[name] is None:
            found[name], origins[name] = backbone.rank, "backbone"
    if "blocks" in found and "blocks" not in given and found["blocks"] > backbone.depth:
        # A shallow backbone may have fewer blocks than a method selects.
        found["blocks"], origins["blocks"] = backbone.depth, "backbone"
    return found, origins


def _names(dataset: str, classes: int) -> tuple[str, ...]:
    """The data set's own names of its classes if there are ``classes`` of them, otherwise none."""
    entry = DATASETS.get(dataset)
    if not entry or not entry.labels:
        return ()
    names = tuple(name for index, name in entry.labels if index >= TASKS[entry.task].background)
    return names if len(names) == classes else ()
