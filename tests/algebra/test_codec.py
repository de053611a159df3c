"""What a codec keeps and what it costs."""

import pytest
import torch

from fedpeft.algebra.codec import CODECS, decode, encode, nbytes, roundtrip

NUMBERS = {
    "a": torch.randn(200, 30, generator=torch.Generator().manual_seed(0)),
    "b": torch.cat([s * torch.logspace(-37, 38, 500) for s in (1, -1)]),
    "scalar": torch.tensor(0.1),
    "empty": torch.zeros(0, 4),
}


def test_float32_is_kept_bit_for_bit() -> None:
    """Signed zeros, subnormals and the largest numbers included."""
    odd = {"odd": torch.tensor([0.0, -0.0, 1e-45, 3.4e38])} | NUMBERS
    for key, x in roundtrip(odd, "float32").items():
        assert torch.equal(x.view(torch.int32), odd[key].view(torch.int32))


def test_bfloat16_is_within_a_relative_2_to_the_minus_8_and_stable() -> None:
    """A second trip through the codec changes nothing."""
    once = roundtrip(NUMBERS, "bfloat16")
    for key, x in once.items():
        assert bool(((x - NUMBERS[key]).abs() <= 2.0**-8 * NUMBERS[key].abs()).all())
        assert torch.equal(roundtrip(once, "bfloat16")[key], x)
    assert not torch.equal(once["a"], NUMBERS["a"])


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_keys_shapes_and_dtype_come_back(codec: str) -> None:
    """Whatever went in, float32 comes out, detached and contiguous on the wire."""
    back = roundtrip({k: x.double() for k, x in NUMBERS.items()}, codec)
    assert list(back) == list(NUMBERS)
    assert all(back[k].shape == x.shape and back[k].dtype == torch.float32 for k, x in NUMBERS.items())
    strided = encode({"t": torch.randn(3, 4, requires_grad=True).mT}, codec)["t"]
    assert strided.is_contiguous() and not strided.requires_grad


def test_nbytes_counts_what_travels() -> None:
    """The size is that of the values in the encoded dtype."""
    count = 200 * 30 + 1000 + 1
    assert nbytes(encode(NUMBERS, "float32")) == 4 * count
    assert nbytes(encode(NUMBERS, "bfloat16")) == 2 * count


def test_what_no_codec_sends_is_refused() -> None:
    """Unknown codecs, integers and foreign dtypes are named."""
    with pytest.raises(ValueError, match=r"unknown codec 'zip', known are \['bfloat16', 'float32'\]"):
        encode(NUMBERS, "zip")
    with pytest.raises(ValueError, match="steps: only floating-point"):
        encode({"steps": torch.tensor(3)}, "float32")
    with pytest.raises(ValueError, match="x: no codec sends torch.float64"):
        decode({"x": torch.zeros(2, dtype=torch.float64)})
