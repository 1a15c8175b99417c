"""A ViT as a pixel diffusion model: what is put around its blocks (JiT: Li & He 2025, arXiv 2511.13720).

Time and class enter by adaptive norms (adaLN-Zero: Peebles & Xie 2023, arXiv 2212.09748) and, as an option, by class
tokens in the sequence. The blocks are timm's own with their own weights; their parts are called one by one here.

Shape letters: B images, C channels, H and W pixels, N patches, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweet.models.forward import unpatchify

FREQUENCIES = 128


class JiT(nn.Module):
    """Noisy images (B, C, H, W), times (B,) in 0..1 and classes (B,) -> clean images (B, C, H, W).

    ``classes`` is their number; the class of that index is "none", for guidance. ``bottleneck`` 0 embeds patches as the
    ViT does, else by two linear maps through so many channels. ``context`` class tokens join before the block at a
    share ``context_start`` of the depth, without the ViT's positions, and leave before the last layer.
    ``gate`` is what a block's branches are multiplied with at first: ``zero`` (adaLN-Zero, each block is the identity
    until its gate opens) or ``one`` (the ViT's own blocks from the first step on). The last layer starts at zero.
    """

    def __init__(
        self,
        vit: Any,
        classes: int,
        *,
        bottleneck: int = 0,
        context: int = 0,
        context_start: float = 1 / 3,
        gate: str = "zero",
    ) -> None:
        super().__init__()
        self.vit = vit
        width, depth, embed = vit.embed_dim, len(vit.blocks), vit.patch_embed
        self.patch, self.channels = embed.patch_size[0], embed.proj.in_channels
        self.patches, self.grid = embed.num_patches, embed.grid_size
        self.times = nn.Sequential(_small(2 * FREQUENCIES, width), nn.SiLU(), _small(width, width))
        self.classes = nn.Embedding(classes + 1, width, _weight=0.02 * torch.randn(classes + 1, width))
        self.modulations = nn.ModuleList(_modulation(width, gate) for _ in range(depth))
        self.last_modulation = _zero(width, 2 * width)
        self.last = _zero(width, self.channels * self.patch**2)
        self.bottleneck: nn.Module | None = None
        if bottleneck:
            self.bottleneck = _two_maps(self.channels, self.patch, bottleneck, width)
            embed.requires_grad_(False)  # carried along, so that the backbone stays a whole ViT
        self.context_start = int(context_start * depth)
        self.context: nn.Parameter | None = None
        if context:
            self.context = nn.Parameter(torch.randn(1, context, width) * 0.02)

    def forward(self, images: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        classes = self.classes(labels)
        condition = F.silu(self.times(frequencies(times)) + classes)
        tokens = self.features(images, condition, classes)[:, -self.patches :]
        shift, scale = self.last_modulation(condition)[:, None].chunk(2, -1)
        patches = self.last(modulated(self.vit.norm(tokens), shift, scale))
        return unpatchify(patches, self.patch, self.channels, self.grid)

    def features(self, images: Tensor, condition: Tensor, classes: Tensor) -> Tensor:
        """Tokens after the last block: the ViT's class token, context tokens (both optional), N patches."""
        embed = self.vit.patch_embed if self.bottleneck is None else self.bottleneck
        x = embed(images)
        if self.bottleneck is not None:
            x = x.flatten(2).transpose(1, 2)
        embedded = self.vit._pos_embed(x)  # Eva: tokens and rotary table; VisionTransformer: tokens
        x, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
        x = self.vit.norm_pre(x)
        prefix = x.shape[1] - self.patches
        for index, (block, modulation) in enumerate(zip(self.vit.blocks, self.modulations, strict=True)):
            if self.context is not None and index == self.context_start:
                context = (self.context + classes[:, None]).to(x.dtype)
                x = torch.cat([x[:, :prefix], context, x[:, prefix:]], 1)
                rope = None if rope is None else unrotated(rope, context.shape[1])
            table = rope[index] if rope is not None and rope.dim() == 4 else rope  # one for each block, or for all
            x = run_block(block, x, table, modulation(condition))
        return x


def run_block(block: Any, x: Tensor, rope: Tensor | None, modulation: Tensor) -> Tensor:
    """One block of timm, modulated: (B, T, D) -> (B, T, D). ``modulation`` is (B, 6 D): shift, scale and gate, twice.

    With shifts and scales of zero and gates of one it is the block itself.
    """
    shift, scale, gate, shift2, scale2, gate2 = modulation[:, None].chunk(6, -1)
    rotary = {} if rope is None else {"rope": rope}
    x = x + block.drop_path1(gate * block.attn(modulated(block.norm1(x), shift, scale), **rotary))
    return x + block.drop_path2(gate2 * block.mlp(modulated(block.norm2(x), shift2, scale2)))


def _small(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def _zero(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _modulation(width: int, gate: str) -> nn.Linear:
    layer = _zero(width, 6 * width)
    if gate == "one":
        layer.bias.detach().view(6, width)[[2, 5]] = 1.0
    return layer


def _two_maps(channels: int, patch: int, between: int, width: int) -> nn.Sequential:
    first, second = nn.Conv2d(channels, between, patch, patch, bias=False), nn.Conv2d(between, width, 1)
    nn.init.xavier_uniform_(first.weight.flatten(1))
    nn.init.xavier_uniform_(second.weight.flatten(1))
    nn.init.zeros_(second.bias)  # type: ignore[arg-type]
    return nn.Sequential(first, second)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens (B, T, D) scaled by 1 + ``scale`` and shifted, both (B, 1, D)."""
    return x * (1 + scale) + shift


def unrotated(rope: Tensor, count: int) -> Tensor:
    """Rotary tables (..., N, sines then cosines) with ``count`` rows before them that turn nothing."""
    sines = rope.new_zeros(*rope.shape[:-2], count, rope.shape[-1] // 2)
    return torch.cat([torch.cat([sines, sines + 1], -1), rope], -2)


def frequencies(times: Tensor) -> Tensor:
    """(B,) in 0..1 -> (B, 256): cosines and sines of 1000 t at frequencies from 1 down to 1/10000."""
    omega = 10000.0 ** (-torch.arange(FREQUENCIES, device=times.device) / FREQUENCIES)
    angles = 1000 * times.float()[:, None] * omega
    return torch.cat([angles.cos(), angles.sin()], 1)
