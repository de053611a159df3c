"""The training step as one would write it first, on the same tensors as ours: what ours is compared with.

segment_anything's own attention, windows, transposed convolutions and normalisation, LoRA added into the fused
projection as SAMed does, float32 throughout, torch's default AdamW.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from fedpeft.common.precision import computing
from fedpeft.config.run import Run
from fedpeft.models.adapters.lora import LoRALinear
from fedpeft.models.payload import trainable
from fedpeft.models.sam.attention import GridAttention
from fedpeft.models.sam.network import AutomaticMaskDecoder, ChannelNorm, Doubling
from fedpeft.models.sam.parts import Attention, common

Loss = Callable[[Tensor, Tensor], Tensor]


class ReferenceMaskDecoder(AutomaticMaskDecoder):
    """SAM's mask decoder with channels first, as published."""

    def forward(self, embedding: Tensor, position: Tensor, dense: Tensor) -> Tensor:
        """Logits of every token, (B, tokens, h * 2**n, w * 2**n)."""
        batch, channels, height, width = embedding.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        tokens, pixels = self.transformer(embedding + dense, position.expand(batch, -1, -1, -1), tokens)
        pixels = self.output_upscaling(pixels.transpose(1, 2).reshape(batch, channels, height, width))
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        wide = pixels.shape[2:]
        return (weights @ pixels.flatten(2)).unflatten(2, wide)


class ReferenceLoRALinear(LoRALinear):
    """W x + b + B A x, added in place into the parts of the fused output."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        y = nn.Linear.forward(self, x)
        for part, pair in self.adapters().items():
            first = self.parts.index(part) * self.width
            y[..., first : first + self.width] += pair(x)
        return y


PUBLISHED: dict[type[nn.Module], type[nn.Module]] = {
    GridAttention: Attention,
    Doubling: nn.ConvTranspose2d,
    ChannelNorm: common.LayerNorm2d,
    AutomaticMaskDecoder: ReferenceMaskDecoder,
    LoRALinear: ReferenceLoRALinear,
}


def reference_model(model: nn.Module) -> nn.Module:
    """A copy of a model of ours with the published classes: the same tensors under the same paths."""
    reference = deepcopy(model)
    for module in list(reference.modules()):
        if isinstance(getattr(module, "attn", None), GridAttention):
            # SAM's blocks cut the windows, ours leave it to the attention.
            module.window_size = module.attn.window
    for module in reference.modules():
        if type(module) in PUBLISHED:
            module.__class__ = PUBLISHED[type(module)]
    return reference


def reference_step(
    model: nn.Module, run: Run, loss: Loss, precision: str = "float32"
) -> Callable[[Tensor, Tensor], float]:
    """A function of a batch that trains one step of a reference model and returns its loss."""
    optimiser = torch.optim.AdamW(
        trainable(model).values(), lr=run.training.learning_rate, weight_decay=run.training.weight_decay
    )

    def step(images: Tensor, labels: Tensor) -> float:
        with computing(precision, images.device):
            logits = model(images)
        value = loss(logits.float(), labels)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        return value.item()

    return step
