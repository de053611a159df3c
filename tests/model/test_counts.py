"""Parameter counts of the paper and its code, to the digit; the formulas are written without the model code."""

import pytest

from fedpeft.cli.methods import counted
from fedpeft.model.initial import skeleton
from fedpeft.model.parcel import parcel
from fedpeft.spec.run import Run

# method -> classes -> (trainable, total), at 224 px, rank 32.
PUBLISHED = {
    "full_ft": {1: (90_398_774, 90_398_774), 2: (90_532_927, 90_532_927)},
    "attn_ft": {1: (29_574_784, 90_398_774)},
    "dec_ft": {1: (3_768_042, 90_398_774), 2: (3_902_195, 90_532_927)},
    "pdec_ft": {1: (344_424, 90_398_774), 2: (478_320, 90_532_927)},
    "lora_ft": {1: (1_368_064, 91_766_838), 2: (1_368_064, 91_900_991)},
    "lora_dec_ft": {1: (5_136_106, 91_766_838), 2: (5_270_259, 91_900_991)},
    "flap_sam": {1: (1_712_488, 91_766_838), 2: (1_846_384, 91_900_991)},
}


@pytest.mark.parametrize(
    ("method", "classes", "expected"),
    [(method, classes, counts) for method, rows in PUBLISHED.items() for classes, counts in rows.items()],
)
def test_counts_of_the_paper(method, classes, expected):
    row = counted(method, "sam_vit_b", classes, rank=0)
    assert (row.trainable, row.total) == expected
    assert row.payload_bytes == 4 * expected[0]


@pytest.mark.parametrize(("rank", "one", "two"), [(4, 515_432, 649_328), (16, 1_028_456, 1_162_352)])
def test_any_rank(rank, one, two):
    assert counted("flap_sam", "sam_vit_b", 1, rank).trainable == one
    assert counted("flap_sam", "sam_vit_b", 2, rank).trainable == two


@pytest.mark.parametrize("rank", [1, 5, 32])
def test_lora_by_formula(rank):
    # Encoder: 12 blocks, q and v, 768 -> 768. Decoder: 7 attentions, q and v; 2 of them 256 -> 256, 5 256 -> 128.
    encoder = 12 * 2 * (768 + 768) * rank
    decoder = 2 * 2 * (256 + 256) * rank + 5 * 2 * (256 + 128) * rank
    assert counted("lora_ft", "sam_vit_b", 1, rank).trainable == encoder + decoder


def test_a_further_class_costs_a_token_and_a_hyper_network():
    token, hyper_network, iou = 256, 2 * (256 * 256 + 256) + 256 * 8 + 8, 256 + 1
    two, three = (counted("flap_sam", "sam_vit_b", classes, 0).trainable for classes in (2, 3))
    assert three - two == token + hyper_network
    two, three = (counted("full_ft", "sam_vit_b", classes, 0).trainable for classes in (2, 3))
    assert three - two == token + hyper_network + iou


def test_what_does_not_travel_is_frozen():
    run = Run("flap_sam", "phantom", "sam_tiny", classes=2)
    declared = parcel(run)
    for path, parameter in skeleton(run).named_parameters():
        assert parameter.requires_grad == (path in declared)
    assert {path.rsplit(".", 1)[1] for path in declared if ".lora." in path} == {"A", "B"}
    assert "image_encoder.blocks.0.attn.qkv.lora.q.A" in declared
    assert not any(".lora.k." in path for path in declared)


def test_a_round_outside_the_run_has_no_parcel():
    with pytest.raises(ValueError, match="round 11"):
        parcel(Run("flap_sam", "phantom", "sam_tiny", rounds=10), 11)
