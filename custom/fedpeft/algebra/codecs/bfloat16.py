"""Two bytes per number: 8 significant bits, a relative error of at most 2^-8 for |x| >= 2^-126."""

import torch

from fedpeft.algebra.codecs.cast import Cast
from fedpeft.algebra.codecs.registry import register_codec

register_codec("bfloat16", Cast(torch.bfloat16))
