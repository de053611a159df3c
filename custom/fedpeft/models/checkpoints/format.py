"""The registry of published formats. A new one is one module of this package that calls ``register_format``.

A format says how files name their tensors. Tensors that our models do not have are folded into those that they have:
separate projections of queries, keys and values are joined, LayerScale's factors multiply the layer before them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from fedpeft.common.registry import Registry
from fedpeft.config.backbones import Backbone

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Format:
    """How files name their tensors; all patterns are regular expressions.

    Attributes:
        family: family of the backbones that are published in this format.
        title: whose names they are, for people.
        example: one of the names, for people; "" for a family of one format.
        mark: matches a name that every file of this format has and no file of another one; "" for a family of one
            format.
        ignored: matches the beginning of names that our models do not use; "" if there are none.
        names: pairs of a pattern and its replacement, applied in turn, from their names to ours.
        steps: functions applied in turn to the tensors under our names.
        parts: modules that a file has and some of our models lack.
    """

    family: str
    title: str
    example: str = ""
    mark: str = ""
    ignored: str = ""
    names: tuple[tuple[str, str], ...] = ()
    steps: tuple[Callable[[Tensors], Tensors], ...] = ()
    parts: tuple[str, ...] = ()

    def recognises(self, keys: Iterable[str]) -> bool:
        """Whether a file that has these names is of this format."""
        return not self.mark or any(re.fullmatch(self.mark, key) for key in keys)

    def translated(self, stored: Tensors) -> Tensors:
        """A file's tensors under our names; a name that the format does not know stays as it is."""
        tensors = {
            self._ours(key): tensor
            for key, tensor in stored.items()
            if not (self.ignored and re.match(self.ignored, key))
        }
        for step in self.steps:
            tensors = step(tensors)
        return tensors

    def _ours(self, key: str) -> str:
        for pattern, name in self.names:
            key = re.sub(pattern, name, key)
        return key

    def may_lack(self, key: str, found: Iterable[str]) -> bool:
        """Whether a complete file, which has the names ``found``, may lack the model's tensor ``key``."""
        return False

    def may_add(self, key: str) -> bool:
        """Whether a file may have a tensor ``key`` that the model lacks."""
        return False


FORMATS: Registry[Format] = Registry("checkpoint format", __package__)


def register_format(name: str, form: Format) -> None:
    """Add a published format.

    Raises:
        ValueError: there is another one of that name.
    """
    FORMATS.register(name, form)


def format_of(keys: Iterable[str], backbone: Backbone) -> Format | None:
    """The format of a backbone's file that has these names; None if no known format has them."""
    names = list(keys)
    return next((form for form in _of_family(backbone) if form.recognises(names)), None)


def remedy(backbone: Backbone) -> str:
    """The files that are expected of a backbone, for a message."""
    known = ", ".join(f"{form.title} ({form.example!r})" for form in _of_family(backbone) if form.example)
    return f"Use the {backbone.name} checkpoint as it was published" + (f"; known names are {known}" if known else "")


def _of_family(backbone: Backbone) -> list[Format]:
    return [form for form in FORMATS.values() if form.family == backbone.family]
