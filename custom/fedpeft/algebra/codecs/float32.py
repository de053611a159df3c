"""Four bytes per number, kept bit for bit."""

import torch

from fedpeft.algebra.codecs.cast import Cast
from fedpeft.algebra.codecs.registry import register_codec

register_codec("float32", Cast(torch.float32))
