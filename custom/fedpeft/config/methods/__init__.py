"""Fine-tuning methods: each is one entry of a registry.

To add one, write an entry; if its mathematics is new, write one adapter (``fedpeft.models.adapters``) or one averaging
rule (``fedpeft.algebra``) besides.
"""

from fedpeft.config.methods import flap_sam, others, vit  # noqa: F401  each registers its entries
from fedpeft.config.methods.entry import METHODS, Adapter, Method, register_methods

__all__ = ["METHODS", "Adapter", "Method", "method", "register_methods"]


def method(name: str) -> Method:
    """The entry called ``name``; ValueError if there is none."""
    return METHODS.find(name)
