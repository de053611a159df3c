"""The forms of other programs' files: no file is of two forms, names at ViT-B's size, descriptions."""

import pytest
import torch
from torch import nn

from fedpeft.config.run import make_run
from fedpeft.models.adapters.slices import SliceMixer
from fedpeft.models.checkpoints.files import unwrapped
from fedpeft.models.initial import skeleton
from fedpeft.models.peers.form import PEERS, Measured, PeerForm, register_peer
from fedpeft.models.peers.placing import file_shapes

SAM = ["image_encoder.patch_embed.proj.weight", "mask_decoder.output_upscaling.3.weight"]
LORA = "image_encoder.blocks.0.attn.lora_w_a_q.0.weight"
NAMES = {
    "flap_sam": [*SAM, "mask_decoder.output_upscaling.9.weight", "mask_decoder.output_upscaling.6.weight", LORA],
    "samed": ["w_a_000", "w_b_000", SAM[1]],
    "ma_sam": ["q_FacTs_000", "v_FacTs_000", "image_encoder.FacTu.weight", "mask_decoder.output_upscaling.6.weight"],
    "medsam": SAM,
}


def test_no_file_is_of_two_forms():
    assert NAMES.keys() == PEERS.keys()
    for name, names in NAMES.items():
        assert [form.name for form in PEERS.values() if form.recognises(names)] == [name]
    ours = ["image_encoder.blocks.0.attn.qkv.lora.q.A", "mask_decoder.output_upscaling.6.weight", *SAM]
    assert not [form.name for form in PEERS.values() if form.recognises(ours)]


# The published files of SAM ViT-B: how many tensors, and one of them.
VIT_B = [
    ("flap_sam", "flap_sam", 392, "image_encoder.blocks.11.attn.lora_w_b_v.0.weight", (768, 32)),
    ("mole", "flap_sam", 563, "mask_decoder.transformer.final_attn_token_to_image.lora_scale", (3,)),
    ("dora", "flap_sam", 430, "image_encoder.blocks.0.attn.dora_m_q", (1, 768)),
    ("full_ft", "flap_sam", 316, "image_encoder.pos_embed", (1, 14, 14, 768)),
    ("samed", "samed", 48 + 131, "w_a_023", (4, 768)),
    ("ma_sam", "ma_sam", 24 + 2 + 144 + 139, "image_encoder.ImageEncoderViT.blocks.11.Block.adapter_conv_2.weight",
     (384, 384, 3, 1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "form", "count", "name", "shape"), VIT_B)
def test_names_at_the_published_size_go_both_ways(method, form, count, name, shape):
    run = make_run(method, "kits19", "sam_vit_b", classes=2)
    peer = PEERS[form]
    state = skeleton(run).state_dict()
    ours = {path: state[path] for path in file_shapes(run, peer)}
    theirs = peer.theirs(ours)
    assert len(theirs) == count and tuple(theirs[name].shape) == shape
    back = peer.ours(theirs)
    assert {path: tensor.shape for path, tensor in back.items()} == {path: t.shape for path, t in ours.items()}
    measured = peer.measured(theirs)
    assert (measured.dim, measured.depth, measured.classes) == (768, 12, 2)
    assert dict(measured.options or {}).get("rank") == run.option("rank")
    assert measured.image_size in (None, run.model.image_size)


@pytest.mark.parametrize(
    ("form", "measured", "expected"),
    [
        ("samed", Measured(1280, 32, 8, options={"rank": 4}), "ViT-H, 512 px, rank 4, 8 classes"),
        ("ma_sam", Measured(1024, 24, 1, options={"rank": 32}), "ViT-L, 512 px, rank 32, 1 class"),
        ("flap_sam", Measured(768, 12, 2, 224, {"experts": 3}), "ViT-B, 224 px, experts 3, 2 classes"),
        ("flap_sam", Measured(96, 3, 2, 224), "an encoder of width 96 and depth 3, 224 px, 2 classes"),
    ],
)
def test_a_file_is_described_for_people(form, measured, expected):
    what = {"flap_sam": "a model saved by FLAP-SAM", "samed": "an adapter saved by SAMed"}
    assert PEERS[form].described(measured) == f"{what.get(form, 'an adapter saved by MA-SAM')} for {expected}"


def test_a_form_is_registered_from_outside(monkeypatch):
    monkeypatch.setattr(PEERS, "_entries", dict(PEERS))

    class Mine(PeerForm):
        name, title, mark, methods = "mine", "Mine", r"mine\..*", ("flap_sam",)

        def measured(self, tensors):
            return Measured(768, 12)

        def ours(self, tensors):
            return {name.removeprefix("mine."): tensor for name, tensor in tensors.items()}

    register_peer(Mine())
    form = next(form for form in PEERS.values() if form.recognises(["mine.a"]))
    assert form.name == "mine" and not form.writes and PEERS["samed"].writes
    with pytest.raises(NotImplementedError, match="only read"):
        form.theirs({})
    with pytest.raises(ValueError, match="'samed' is registered already"):
        register_peer(type("Other", (Mine,), {"name": "samed"})())


@pytest.mark.parametrize(
    "found",
    [
        {"a": 1, "module.b": 2},
        {"state_dict": {"a": 1, "module.b": 2}, "epoch": 3},
        {"model": {"state_dict": {"a": 1, "module.b": 2}}},
        {"model_state_dict": {"module.a": 1, "module.module.b": 2}},
        {"state_dict": {"module._orig_mod.a": 1, "module._orig_mod.module.b": 2}},
    ],
)
def test_wrappers_and_shared_prefixes_are_taken_off(found):
    """A prefix that only some names have belongs to them."""
    assert unwrapped(found) == {"a": 1, "module.b": 2}


@pytest.mark.parametrize(("dim", "width"), [(128, 64), (768, 384), (1024, 384), (1280, 384)])
def test_slice_mixers_are_as_ma_sam_published_them(dim, width):
    """384 channels for SAM of every size, and the encoder's epsilon."""
    mixer = SliceMixer(dim, 5)
    assert mixer.down.weight.shape == (width, dim) and mixer.conv.weight.shape == (width, width, 3, 1, 1)
    assert isinstance(mixer.norm, nn.LayerNorm) and mixer.norm.eps == 1e-6
    x = torch.full((5, 1, 1, dim), 1e-3) * torch.arange(dim)
    torch.testing.assert_close(
        mixer.norm(x), (x - x.mean(-1, True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    )
