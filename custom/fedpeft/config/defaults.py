"""Defaults of a run that depend on its method, backbone and data set."""

from collections.abc import Mapping
from typing import Any

from fedpeft.config.backbones import Backbone
from fedpeft.config.datasets import DATASETS
from fedpeft.config.methods import Method
from fedpeft.config.sections import Data
from fedpeft.config.tasks import TASKS


def fill(values: dict[str, dict[str, Any]], method: Method, backbone: Backbone) -> None:
    """Set, in place, the values that the entries give and that are not set."""
    model, data, training = values["model"], values["data"], values["training"]
    size = min(method.image_size, backbone.published_image_size) or backbone.image_size
    model.setdefault("image_size", size)
    model["options"] = _options(model.get("options", {}), method, backbone)
    labels = _names(data["dataset"], data.get("classes", Data.model_fields["classes"].default))
    data["labels"] = tuple(data.get("labels", labels))
    training.setdefault("base_learning_rate", backbone.learning_rate)
    training.setdefault("learning_rate", training["base_learning_rate"] * method.rate)


def _options(given: Mapping[str, Any], method: Method, backbone: Backbone) -> dict[str, Any]:
    """The method's own options, from ``given``, else its entry, else the backbone; drops those of other methods."""
    found = method.options | {name: value for name, value in given.items() if name in method.options}
    for name in ("rank", "width"):
        if name in found and found[name] is None:
            found[name] = backbone.rank
    if "blocks" in found and "blocks" not in given:
        # A shallow backbone may have fewer blocks than a method selects.
        found["blocks"] = min(found["blocks"], backbone.depth)
    return found


def _names(dataset: str, classes: int) -> tuple[str, ...]:
    """The data set's own names of its classes if there are ``classes`` of them, otherwise none."""
    entry = DATASETS.get(dataset)
    if not entry or not entry.labels:
        return ()
    names = tuple(name for index, name in entry.labels if index >= TASKS[entry.task].background)
    return names if len(names) == classes else ()
