"""Parameter counts of the paper and its code, to the digit; the formulas are written without the model code."""

from functools import cache

import pytest

from fedpeft.cli import methods
from fedpeft.config.run import make_run
from fedpeft.models.initial import skeleton
from fedpeft.models.payload import payload

# method -> classes -> (trainable, total), at 224 px, rank 32.
PUBLISHED = {
    "full_ft": {1: (90_398_774, 90_398_774), 2: (90_532_927, 90_532_927)},
    "attn_ft": {1: (29_574_784, 90_398_774)},
    # The count of the authors' code, which trains the output head as well.
    "attn_ft_head": {1: (29_919_208, 90_398_774), 2: (30_053_104, 90_532_927)},
    "dec_ft": {1: (3_768_042, 90_398_774), 2: (3_902_195, 90_532_927)},
    "pdec_ft": {1: (344_424, 90_398_774), 2: (478_320, 90_532_927)},
    "lora_ft": {1: (1_368_064, 91_766_838), 2: (1_368_064, 91_900_991)},
    "lora_dec_ft": {1: (5_136_106, 91_766_838), 2: (5_270_259, 91_900_991)},
    "flap_sam": {1: (1_712_488, 91_766_838), 2: (1_846_384, 91_900_991)},
    "dora": {1: (1_734_504, 91_788_854), 2: (1_868_400, 91_923_007)},
    "dora_frozen": {1: (1_712_488, 91_788_854), 2: (1_846_384, 91_923_007)},
    "mole": {1: (4_448_673, 94_503_023), 2: (4_582_569, 94_637_176)},
    # With two classes the paper has 28.721M, which its own set of tensors does not give: the decoder alone grows by
    # 134,153.
    "ma_sam": {1: (28_666_678, 115_291_190), 2: (28_666_678 + 134_153, 115_425_343)},
}


# A random start of B changes no count.
PUBLISHED |= {f"{name}_random_b": PUBLISHED[name] for name in ("flap_sam", "lora_ft", "lora_dec_ft")}


@cache
def counted(method, backbone, classes, rank):
    return methods.counted(make_run(method, "folder", backbone, classes=classes, rank=rank))


@pytest.mark.parametrize(
    ("method", "classes", "expected"),
    [(method, classes, counts) for method, rows in PUBLISHED.items() for classes, counts in rows.items()],
)
def test_counts_of_the_paper(method, classes, expected):
    row = counted(method, "sam_vit_b", classes, rank=None)
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


@pytest.mark.parametrize("rank", [4, 32])
@pytest.mark.parametrize("classes", [1, 2])
def test_samed_by_formula(rank, classes):
    lora = 12 * 2 * (768 + 768) * rank
    # The decoder of one class at 16x, its last two stages taken away: ConvT 32 -> 16 and 16 -> 8 with bias, LayerNorm
    # after stages 2 and 3 (a decoder's last stage has none); the hyper-networks answer with 32 channels instead of 8.
    stages = (32 * 16 * 4 + 16) + (16 * 8 * 4 + 8) + 2 * 32 + 2 * 16
    tokens = classes + 1
    hyper_networks = tokens * (256 * (32 - 8) + (32 - 8))
    decoder = 3_768_042 + (classes - 1) * 134_153 - stages + hyper_networks
    prompt_encoder = 6_220
    row = counted("samed", "sam_vit_b", classes, rank)
    assert row.trainable == lora + decoder + prompt_encoder
    # The frozen encoder at 512 px: 32 x 32 positions instead of 14 x 14, and longer relative positions in the four
    # global blocks, two axes of 64 channels.
    encoder = 86_624_512 + 768 * (32**2 - 14**2) + 4 * 2 * 64 * ((2 * 32 - 1) - (2 * 14 - 1))
    assert row.total == encoder + row.trainable


@pytest.mark.parametrize("rank", [4, 16, 32])
def test_ma_sam_by_formula(rank):
    slots, half = 12 * 2, 384
    bases = 2 * 768 * rank
    mixer = 2 * 768 + 768 * half + (half * half * 3 + half) + half * 768
    rest = 12 * 2 * mixer + 3_768_042 + 6_220
    assert counted("ma_sam", "sam_vit_b", 1, rank).trainable == bases + slots * rank**2 + rest
    assert counted("ma_sam_tk", "sam_vit_b", 1, rank).trainable == bases + rank**3 + rank * slots + rest


@pytest.mark.parametrize("rank", [4, 16, 32])
def test_dora_and_mole_by_formula(rank):
    lora, flap = (counted(name, "sam_vit_b", 2, rank).trainable for name in ("lora_ft", "flap_sam"))
    assert counted("dora", "sam_vit_b", 2, rank).trainable == flap + 12 * 2 * 768 + 7 * 2 * 256
    assert counted("mole", "sam_vit_b", 2, rank).trainable == flap + 2 * lora + (12 + 7) * 3


def test_a_row_becomes_what_the_backbone_can():
    """SAMed's 512 px are more than the small backbone was trained at."""
    assert (
        make_run("samed", "folder", "sam_vit_b").model.image_size,
        make_run("samed", "folder", "sam_tiny").model.image_size,
    ) == (512, 96)
    assert (
        make_run("samed", "folder", "sam_vit_b").option("rank"),
        make_run("samed", "folder", "sam_tiny").option("rank"),
    ) == (4, 4)
    assert make_run("samed", "folder", "sam_tiny").upscaling == (32, 16)


def test_a_further_class_costs_a_token_and_a_hyper_network():
    token, hyper_network, iou = 256, 2 * (256 * 256 + 256) + 256 * 8 + 8, 256 + 1
    two, three = (counted("flap_sam", "sam_vit_b", classes, None).trainable for classes in (2, 3))
    assert three - two == token + hyper_network
    two, three = (counted("full_ft", "sam_vit_b", classes, None).trainable for classes in (2, 3))
    assert three - two == token + hyper_network + iou


def test_what_does_not_travel_is_frozen():
    run = make_run("flap_sam", "phantom", "sam_tiny", classes=2)
    declared = payload(run)
    for path, parameter in skeleton(run).named_parameters():
        assert parameter.requires_grad == (path in declared)
    assert {path.rsplit(".", 1)[1] for path in declared if ".lora." in path} == {"A", "B"}
    assert "image_encoder.blocks.0.attn.qkv.lora.q.A" in declared
    assert not any(".lora.k." in path for path in declared)


def test_a_round_outside_the_run_has_no_payload():
    with pytest.raises(ValueError, match="round 11"):
        payload(make_run("flap_sam", "phantom", "sam_tiny", rounds=10), 11)
