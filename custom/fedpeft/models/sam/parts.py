"""segment_anything's modelling classes, imported without torchvision, which its package otherwise imports."""

import importlib
import importlib.util
import sys
from types import ModuleType


def _modeling() -> ModuleType:
    """segment_anything.modeling without segment_anything/__init__.py, which imports torchvision.

    A bare package object stands in for the package while its sub-package is imported and is removed afterwards, so that
    a later import of segment_anything itself gets the real package.
    """
    name = "segment_anything"
    if name in sys.modules:
        return importlib.import_module(f"{name}.modeling")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{name} is not installed; install it with: pip install -r requirements.txt")
    bare = ModuleType(name)
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = bare
    try:
        return importlib.import_module(f"{name}.modeling")
    finally:
        del sys.modules[name]


modeling = _modeling()
encoder = importlib.import_module("segment_anything.modeling.image_encoder")
common = importlib.import_module("segment_anything.modeling.common")
mask_decoder = importlib.import_module("segment_anything.modeling.mask_decoder")

# A transformer block norm1, attn, norm2, mlp; SAM's encoder and our Vision Transformer have the same.
Block = encoder.Block
Attention = encoder.Attention
MaskDecoder = mask_decoder.MaskDecoder
LayerNorm2d = common.LayerNorm2d
