"""What a codec keeps and what it costs."""

import pytest
import torch

from fedpeft.algebra.codec import CODECS, decode, encode, encoded_bytes, is_encoded, nbytes, roundtrip
from fedpeft.algebra.codecs.cast import Cast
from fedpeft.algebra.codecs.int8 import BLOCK, SCALES, VALUES
from fedpeft.algebra.codecs.registry import register_codec
from fedpeft.config.codecs import CODECS as NAMES

NUMBERS = {
    "a": torch.randn(200, 30, generator=torch.Generator().manual_seed(0)),
    "b": torch.cat([s * torch.logspace(-37, 38, 500) for s in (1, -1)]),
    "scalar": torch.tensor(0.1),
    "empty": torch.zeros(0, 4),
    "zero": torch.zeros(300),
    "odd": 1e-3 * torch.randn(2 * BLOCK + 1, generator=torch.Generator().manual_seed(1)),
}
SHAPES = {key: tuple(tensor.shape) for key, tensor in NUMBERS.items()}
COUNT = sum(tensor.numel() for tensor in NUMBERS.values())


def test_a_runs_codecs_are_these() -> None:
    """What a run may name is what there is."""
    assert set(NAMES) == set(CODECS)


def test_float32_is_kept_bit_for_bit() -> None:
    """Signed zeros, subnormals and the largest numbers included."""
    odd = {"odd": torch.tensor([0.0, -0.0, 1e-45, 3.4e38])}
    for key, x in roundtrip(odd, "float32").items():
        assert torch.equal(x.view(torch.int32), odd[key].view(torch.int32))


def test_bfloat16_is_within_a_relative_2_to_the_minus_8() -> None:
    """And not exact."""
    once = roundtrip(NUMBERS, "bfloat16")
    for key, x in once.items():
        assert bool(((x - NUMBERS[key]).abs() <= 2.0**-8 * NUMBERS[key].abs()).all())
    assert not torch.equal(once["a"], NUMBERS["a"])


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30, 2.6e38])
def test_int8_is_within_a_250th_of_its_blocks_largest(scale: float) -> None:
    """For Gaussian blocks, for ones with an outlier, and up to the largest float32."""
    x = torch.randn(50, BLOCK, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    x[10:20, 3] *= 1e-3
    x[20:30] *= 1e-4
    x[20:30, 7] = 1.0
    x = scale * x / x.abs().max()
    back = roundtrip({"x": x}, "int8")["x"]
    assert bool(((back - x).abs() <= x.abs().amax(1, keepdim=True) / 250).all())
    assert torch.equal(back.sign(), back.sign() * (x != 0)) and not torch.equal(back, x)


def test_int8_keeps_zeros_the_largest_float32_and_what_is_too_small_for_a_scale_is_zero() -> None:
    """A block of zeros has a scale of zero; nothing becomes infinite; below 2e-36 a value becomes zero."""
    largest = torch.finfo(torch.float32).max
    back = roundtrip({"zero": torch.zeros(9), "tiny": torch.full((5,), 1e-36), "huge": torch.tensor([largest])}, "int8")
    assert not back["zero"].any() and not back["tiny"].any()
    assert back["huge"].isfinite().all() and abs(back["huge"].item() / largest - 1) < 1 / 250


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_second_trip_changes_nothing_and_each_tensor_goes_by_itself(codec: str) -> None:
    """So a filter may encode again, and what a tensor becomes does not depend on the rest of the payload."""
    once = roundtrip(NUMBERS, codec)
    again = roundtrip(once, codec)
    for key, x in once.items():
        assert torch.equal(again[key], x)
        assert torch.equal(roundtrip({key: NUMBERS[key]}, codec)[key], x)


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_keys_shapes_and_dtype_come_back(codec: str) -> None:
    """Whatever went in, float32 comes out, detached and contiguous on the wire."""
    back = roundtrip({k: x.double() for k, x in NUMBERS.items()}, codec)
    assert list(back) == list(NUMBERS)
    assert all(back[k].shape == x.shape and back[k].dtype == torch.float32 for k, x in NUMBERS.items())
    strided = torch.randn(3, 4, requires_grad=True).mT
    sent = encode({"t": strided}, codec)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in sent.values())
    assert torch.allclose(decode(sent, {"t": (4, 3)}, codec)["t"], strided, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("float32", 4 * COUNT),
        ("bfloat16", 2 * COUNT),
        # Blocks: 47 of a, 8 of b, 1, none, 3 and 3.
        ("int8", COUNT + 2 * (47 + 8 + 1 + 3 + 3)),
    ],
)
def test_the_declared_size_is_what_travels(codec: str, expected: int) -> None:
    """Known from the shapes alone."""
    sent = encode(NUMBERS, codec)
    assert nbytes(sent) == encoded_bytes(SHAPES, codec) == expected
    assert is_encoded(sent, codec) == (codec == "int8") and not is_encoded(NUMBERS, codec)


@pytest.mark.parametrize("codec", ["int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_int8_refuses_what_is_not_finite(codec: str, value: float) -> None:
    """1e39 is infinite in float32."""
    with pytest.raises(ValueError, match="bad: NaN or infinity"):
        encode({"good": torch.zeros(3), "bad": torch.tensor([1.0, value], dtype=torch.float64)}, codec)


def _changed(name: str, change) -> dict[str, torch.Tensor]:
    sent = encode(NUMBERS, "int8")
    return sent | {name: change(sent[name].clone())}


def _with(value: float):
    def change(scales: torch.Tensor) -> torch.Tensor:
        scales[5] = value
        return scales

    return change


@pytest.mark.parametrize(
    ("buffers", "word"),
    [
        (
            _changed(VALUES, lambda x: x[1:]),
            r"is torch.int8 \(7557,\), 8 bits travel as 'values' torch.int8 \(7558,\) and",
        ),
        (_changed(VALUES, lambda x: x.to(torch.uint8)), "'values' is torch.uint8"),
        (_changed(VALUES, lambda x: x[:, None]), r"'values' is torch.int8 \(7558, 1\)"),
        (_changed(SCALES, lambda x: x.float()), "'scales' is torch.float32"),
        (_changed(SCALES, lambda x: x[:-1]), r"'scales' is torch.bfloat16 \(61,\)"),
        (_changed(SCALES, _with(float("nan"))), "negative or not finite"),
        (_changed(SCALES, _with(float("inf"))), "negative or not finite"),
        (_changed(SCALES, _with(-1.0)), "negative or not finite"),
        (encode(NUMBERS, "int8") | {"note": torch.zeros(2)}, "'note' is extra"),
        ({VALUES: encode(NUMBERS, "int8")[VALUES]}, "'scales' is missing"),
        (NUMBERS, "'a' is extra"),
    ],
)
def test_buffers_that_are_not_those_of_the_payload_are_refused(buffers: dict[str, torch.Tensor], word: str) -> None:
    """With what came and what was expected."""
    with pytest.raises(ValueError, match=word):
        decode(buffers, SHAPES, "int8")


def test_what_no_codec_sends_is_refused() -> None:
    """Unknown codecs, integers and foreign dtypes are named."""
    with pytest.raises(ValueError, match="unknown codec 'zip'; known: ") as caught:
        encode(NUMBERS, "zip")
    assert all(name in str(caught.value) for name in ("bfloat16", "float32", "int8"))
    for codec in CODECS:
        with pytest.raises(ValueError, match="steps: only floating-point"):
            encode({"steps": torch.tensor(3)}, codec)
    with pytest.raises(ValueError, match="x: got torch.float64, expected torch.bfloat16"):
        decode({"x": torch.zeros(2, dtype=torch.float64)}, {"x": (2,)}, "bfloat16")


def test_a_codec_is_registered_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """It then encodes and decodes by its name like any other; a name is taken once."""
    monkeypatch.setattr(CODECS, "_entries", dict(CODECS))
    register_codec("outside16", Cast(torch.float16))
    numbers = {"a": NUMBERS["a"]}
    sent = encode(numbers, "outside16")
    assert nbytes(sent) == encoded_bytes({"a": SHAPES["a"]}, "outside16") == 2 * NUMBERS["a"].numel()
    assert torch.equal(roundtrip(numbers, "outside16")["a"], NUMBERS["a"].half().float())
    with pytest.raises(ValueError, match="codec 'int8' is registered already; give the new one another name"):
        register_codec("int8", Cast(torch.float16))
