"""The Vision Transformer against PyTorch's own encoder layers, and classifiers of either family."""

import pytest
import torch
from torch import nn

from fedpeft.config.run import make_run
from fedpeft.models import networks
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build

VIT = make_run("linear_probe", "images", "vit_tiny", classes=3)
SAM = VIT.with_(backbone="sam_tiny")


def pictures(run):
    return torch.rand(2, 3, run.model.image_size, run.model.image_size, generator=torch.Generator().manual_seed(0))


def _layer(block):
    """PyTorch's pre-norm encoder layer with a block's tensors."""
    own = block.state_dict()
    layer = nn.TransformerEncoderLayer(
        128, 4, 512, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.lin1.",
        "linear2.": "mlp.lin2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    layer.load_state_dict({old + leaf: own[new + leaf] for old, new in names.items() for leaf in ("weight", "bias")})
    return layer


def test_the_transformer_is_the_published_one():
    model = build(VIT, None)
    encoder = model.image_encoder
    patches = nn.functional.unfold(pictures(VIT), 8, stride=8).transpose(1, 2)
    patches = patches @ encoder.patch_embed.proj.weight.flatten(1).T + encoder.patch_embed.proj.bias
    x = torch.cat([encoder.cls_token.expand(2, 1, 128), patches], dim=1) + encoder.pos_embed
    for block in encoder.blocks:
        x = _layer(block)(x)
    expected = nn.functional.layer_norm(x, (128,), encoder.norm.weight, encoder.norm.bias, eps=1e-6)[:, 0]
    torch.testing.assert_close(model.features(pictures(VIT)), expected, rtol=1e-4, atol=1e-5)


def test_class_token_and_positions_are_drawn():
    encoder = build(VIT, None).image_encoder
    assert encoder.cls_token.shape == (1, 1, 128) and encoder.pos_embed.shape == (1, 65, 128)
    assert abs(encoder.cls_token.std() - 0.02) < 0.004 and abs(encoder.pos_embed.std() - 0.02) < 0.001


@pytest.mark.parametrize("run", [VIT, SAM, VIT.with_(image_size=32), SAM.with_(image_size=64)])
def test_the_head_is_linear_in_the_features_and_zero_at_the_start(run):
    model = build(run, None)
    assert not model.head.weight.any() and not model.head.bias.any()
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    features = model.features(pictures(run))
    assert features.shape == (2, run.backbone.neck or run.backbone.dim)
    torch.testing.assert_close(model(pictures(run)), features @ model.head.weight.T)


def test_sams_encoder_classifies_with_the_weights_of_its_segmentation():
    file = shipped(SAM.backbone)
    segmenting = build(make_run("pdec_ft", "phantom", "sam_tiny", classes=2), file)
    model = build(SAM, file)
    assert {path.partition(".")[0] for path in model.state_dict()} == {"image_encoder", "head"}
    for path, tensor in model.image_encoder.state_dict().items():
        assert torch.equal(tensor, segmenting.image_encoder.state_dict()[path]), path
    embedding = segmenting.image_encoder(pictures(SAM))
    assert embedding.shape == (2, 64, 12, 12)
    torch.testing.assert_close(model.features(pictures(SAM)), embedding.flatten(2).mean(dim=2))


def test_a_network_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.delitem(networks.NETWORKS, ("vit", "classification"))
    with pytest.raises(ValueError, match=r"vit_tiny \(vit\) fit classification; known: sam for segmentation, sam"):
        networks.network(VIT)
