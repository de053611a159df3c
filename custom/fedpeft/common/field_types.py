"""Types of pydantic fields that are not pydantic's own, and classes to which fields can be added later."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, PlainSerializer


@dataclass(frozen=True)
class Schema:
    """A type's JSON schema, made when it is asked for: entries may be added until then."""

    make: Callable[[], dict[str, Any]]

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return self.make()


def _weights(value: Any) -> Any:
    """(name, weight) pairs sorted by name, from an object or from name=weight,name=weight."""
    pairs = value
    if isinstance(value, str):
        pairs = [part.rpartition("=")[::2] for part in value.split(",")]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    try:
        found = {str(name): float(weight) for name, weight in pairs}
        if len(found) == len(pairs) > 0 and all(name and isfinite(w) and w > 0 for name, w in found.items()):
            return tuple(sorted(found.items()))
    except (TypeError, ValueError):
        pass
    raise ValueError("weights above 0 by name, each name once, as site-A=0.03,site-B=0.18")


Weights = Annotated[
    tuple[tuple[str, float], ...],
    BeforeValidator(_weights),
    PlainSerializer(lambda pairs: None if pairs is None else dict(pairs)),
    Schema(lambda: {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}}),
]


@dataclass(frozen=True)
class Later:
    """The mark of a field that was added to a `Growing` class later."""


LATER = Later()


class Growing(BaseModel):
    """Base of classes whose ``repr`` goes into fingerprints.

    ``repr`` shows a field that is marked as ``LATER`` only where it differs from its default. So the fingerprint of an
    object that does not use the field is the one that it had before the field was added.
    """

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields that ``repr`` shows, with their values."""
        for name, value in super().__repr_args__():
            field = type(self).model_fields.get(name or "")
            if field is None or LATER not in field.metadata or value != field.default:
                yield name, value
