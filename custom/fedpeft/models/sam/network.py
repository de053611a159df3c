"""SAM for fully automatic segmentation of slices, built from segment_anything's own modelling classes.

Three things differ from the published network, as in the FLAP-SAM paper: no prompts are given, the mask decoder has
``classes + 1`` tokens (token 0 is background), and the logits have the input's resolution. As many transposed
convolutions as the run says enlarge them; bilinear interpolation does the rest, except in the training of a run whose
loss has the mask decoder's own resolution (``loss_size``).
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm, linear

from fedpeft.config.run import Run
from fedpeft.models.networks import register_network
from fedpeft.models.sam.attention import GridAttention
from fedpeft.models.sam.parts import LayerNorm2d, MaskDecoder, mask_decoder, modeling


class AutomaticMaskDecoder(MaskDecoder):
    """SAM's mask decoder for batches of images without prompts.

    Args:
        neck: channels of the image embedding.
        heads: attention heads of the two-way transformer.
        mlp: width of its MLPs.
        upscaling: channels after each transposed convolution; n of them enlarge by 2**n.
        tokens: mask tokens, background included.
    """

    def __init__(self, neck: int, heads: int, mlp: int, upscaling: tuple[int, ...], tokens: int) -> None:
        transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=neck, num_heads=heads, mlp_dim=mlp)
        super().__init__(
            transformer_dim=neck, transformer=transformer, num_multimask_outputs=tokens - 1, iou_head_hidden_dim=neck
        )
        self.output_upscaling = _upscaling(neck, upscaling)
        self.output_hypernetworks_mlps = nn.ModuleList(
            mask_decoder.MLP(neck, neck, upscaling[-1], 3) for _ in range(tokens)
        )

    def forward(self, embedding: Tensor, position: Tensor, dense: Tensor) -> Tensor:
        """Logits of every token.

        Args:
            embedding: image embeddings, (B, neck, h, w).
            position: positional encoding of the grid, (1, neck, h, w).
            dense: the embedding that stands for "no mask prompt", (1, neck, 1, 1).

        Returns:
            Logits before the softmax over tokens, (B, tokens, h * 2**n, w * 2**n).
        """
        batch, _, height, width = embedding.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        tokens, pixels = self.transformer(embedding + dense, position.expand(batch, -1, -1, -1), tokens)
        pixels = self.output_upscaling(pixels.unflatten(1, (height, width)))
        # Token 0 of the transformer's output is the IoU token, which the loss does not use.
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return (weights @ pixels.flatten(1, 2).mT).unflatten(2, pixels.shape[1:3])


class Doubling(nn.ConvTranspose2d):
    """SAM's transposed convolution, kernel and stride 2, channels last, as one matrix product.

    Kernel and stride are equal, so no two inputs reach the same output. The normalisation after it needs channels last.
    """

    bias: nn.Parameter

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, h, w, in_channels) -> (B, 2 h, 2 w, out_channels)."""
        # (in, out, 2, 2) -> (2 * 2 * out, in).
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        fours = linear(input, weight, self.bias.repeat(4)).unflatten(-1, (2, 2, self.out_channels))
        return fours.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class ChannelNorm(LayerNorm2d):
    """SAM's LayerNorm2d, channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> the same shape."""
        return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def _upscaling(neck: int, channels: tuple[int, ...]) -> nn.Sequential:
    """Doublings with normalisation and GELU between them, and GELU alone after the last: (B, h, w, channels) -> larger.

    Positions 0, 1 and 3 are those of the published decoder, so that its first two stages can be loaded.
    """
    layers: list[nn.Module] = []
    for before, after in zip((neck, *channels[:-1]), channels, strict=True):
        layers += [Doubling(before, after, kernel_size=2, stride=2), ChannelNorm(after), nn.GELU()]
    del layers[-2]
    return nn.Sequential(*layers)


def image_encoder(run: Run) -> nn.Module:
    """SAM's image encoder at the run's image size.

    It maps normalised images (B, 3, size, size) to (B, neck, size / patch, size / patch).
    """
    backbone, size = run.backbone, run.model.image_size
    encoder = modeling.ImageEncoderViT(
        img_size=size,
        patch_size=backbone.patch,
        embed_dim=backbone.dim,
        depth=backbone.depth,
        num_heads=backbone.heads,
        out_chans=backbone.neck,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=0,
    )
    for number, block in enumerate(encoder.blocks):
        window = 0 if number in backbone.global_blocks else backbone.window
        block.attn = GridAttention(backbone.dim, backbone.heads, size // backbone.patch, window)
    return encoder


@register_network("sam", "segmentation")
class SegmentationSam(nn.Module):
    """Image encoder, prompt encoder and mask decoder under the published names.

    Args:
        run: gives backbone, classes, image size and the decoder's upscaling.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        backbone, size = run.backbone, run.model.image_size
        grid = size // backbone.patch
        self._trains_small = run.training.loss_size == "decoder"
        self.image_encoder = image_encoder(run)
        self.prompt_encoder = modeling.PromptEncoder(
            embed_dim=backbone.neck, image_embedding_size=(grid, grid), input_image_size=(size, size), mask_in_chans=16
        )
        self.mask_decoder = AutomaticMaskDecoder(
            backbone.neck, backbone.decoder_heads, backbone.decoder_mlp, run.upscaling, run.data.classes + 1
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of background and classes.

        Args:
            images: normalised grey slices, (B, 1, size, size); the one channel is copied to the three of SAM.

        Returns:
            Logits, (B, classes + 1, size, size); see ``decode`` for those of training.
        """
        return self.decode(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """Embeddings, which depend on the image encoder alone: (B, 1, size, size) -> (B, neck, h, w)."""
        return self.image_encoder(images.expand(-1, 3, -1, -1))

    def decode(self, embedding: Tensor) -> Tensor:
        """Logits from embeddings: (B, neck, h, w) -> (B, classes + 1, size, size).

        In training mode with ``loss_size`` "decoder" they have the mask decoder's resolution, (h * 2**n, w * 2**n) with
        n transposed convolutions.
        """
        dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        logits = self.mask_decoder(embedding, self.prompt_encoder.get_dense_pe(), dense)
        size = self.prompt_encoder.input_image_size
        if logits.shape[-2:] == size or (self.training and self._trains_small):
            return logits
        return interpolate(logits, size=size, mode="bilinear", align_corners=False)
