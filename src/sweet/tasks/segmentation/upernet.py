"""UPerNet on a plain ViT: a class for every pixel (arXiv 1807.10221; on a ViT as in MAE, arXiv 2111.06377).

Ours differs in two points: group instead of batch normalisation, which knows no other image and needs no large batch;
and the ViT's final norm on all four levels, because the residual stream of a block has no scale of its own.

Shape letters: B images, D width of the ViT, C channels of the decoder, K classes, h x w a level's cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def level_blocks(depth: int) -> list[int]:
    """The blocks whose outputs are the four levels: 3, 5, 7, 11 of twelve, some of them twice where there are few."""
    return [max(0, round(depth * twelfths / 12) - 1) for twelfths in (4, 6, 8, 12)]


def group_norm(channels: int) -> nn.GroupNorm:
    """At least 16 channels a group: the pooled maps have one cell, of which nothing would be left in small groups."""
    groups = next((groups for groups in (32, 16, 8, 4, 2) if channels % (16 * groups) == 0), 1)
    return nn.GroupNorm(groups, channels)


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """(B, inputs, h, w) -> (B, outputs, h, w): a convolution of odd ``kernel``, group normalisation, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, group_norm(outputs), nn.ReLU())


def doubled(channels: int) -> nn.ConvTranspose2d:
    """(B, C, h, w) -> (B, C, 2 h, 2 w), learned."""
    return nn.ConvTranspose2d(channels, channels, 2, 2)


def finest(patch: int) -> int:
    """How much finer than patches of so many pixels the finest level is: 4, or less where a cell had under 2 pixels."""
    return next((factor for factor in (4, 2) if patch >= 2 * factor), 1)


def finer(channels: int, factor: int) -> nn.Module:
    """(B, C, h, w) -> (B, C, factor h, factor w), learned; ``factor`` is 4, 2 or 1."""
    if factor == 4:
        return nn.Sequential(doubled(channels), group_norm(channels), nn.GELU(), doubled(channels))
    return doubled(channels) if factor == 2 else nn.Identity()


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear, corners not aligned."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class PerCell(nn.Sequential):
    """Dropout and a linear classifier of every cell: (B, C, h, w) -> (B, K, h, w)."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        classify = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(classify.weight, std=0.01)
        super().__init__(nn.Dropout2d(dropout), classify)


class UPerHead(nn.Module):
    """Four levels (B, D, h, w), the finest first -> (B, K, h, w) at the finest.

    Pyramid pooling of the coarsest level, then a feature pyramid from coarse to fine, then all levels together.
    """

    def __init__(self, width: int, classes: int, channels: int, pool_scales: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.pool_scales = tuple(pool_scales)
        self.pooled = nn.ModuleList(convolution(width, channels, 1) for _ in self.pool_scales)
        self.context = convolution(width + len(self.pool_scales) * channels, channels, 3)
        self.lateral = nn.ModuleList(convolution(width, channels, 1) for _ in range(3))
        self.smooth = nn.ModuleList(convolution(channels, channels, 3) for _ in range(3))
        self.fuse = convolution(4 * channels, channels, 3)
        self.classify = PerCell(channels, classes, dropout)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        *finer, coarsest = levels
        size = coarsest.shape[-2:]
        pools = [
            resize(conv(F.adaptive_avg_pool2d(coarsest, scale)), size)
            for conv, scale in zip(self.pooled, self.pool_scales, strict=True)
        ]
        above = self.context(torch.cat([coarsest, *pools], 1))
        maps = [above]
        for lateral, smooth, level in reversed(list(zip(self.lateral, self.smooth, finer, strict=True))):
            above = lateral(level) + resize(above, level.shape[-2:])
            maps.append(smooth(above))
        finest = finer[0].shape[-2:]
        return self.classify(self.fuse(torch.cat([resize(x, finest) for x in reversed(maps)], 1)))


class Segmenter(nn.Module):
    """Images (B, C, H, W) of any size -> logits (B, K, H, W); in training also those of the auxiliary head, or None.

    ``vit`` is a timm ``Eva`` or ``VisionTransformer`` built with ``dynamic_img_size`` and ``dynamic_img_pad``.
    ``aux_channels=0`` leaves the auxiliary head out; the finest level is ``upsample`` times as fine as the patches.
    """

    def __init__(
        self,
        vit: Any,
        classes: int,
        *,
        channels: int,
        pool_scales: Sequence[int],
        dropout: float,
        aux_channels: int,
        upsample: int,
    ) -> None:
        super().__init__()
        width = vit.embed_dim
        self.vit = vit
        self.blocks = level_blocks(len(vit.blocks))
        factors = (min(factor, upsample) for factor in (4, 2, 1))
        self.rescale = nn.ModuleList([*(finer(width, factor) for factor in factors), nn.MaxPool2d(2, ceil_mode=True)])
        self.decoder = UPerHead(width, classes, channels, pool_scales, dropout)
        self.auxiliary = (
            nn.Sequential(convolution(width, aux_channels, 3), PerCell(aux_channels, classes, dropout))
            if aux_channels
            else None
        )

    def forward(self, images: Tensor) -> Any:
        found = self.vit.forward_intermediates(images, indices=self.blocks, norm=True, intermediates_only=True)
        taken = dict(zip(sorted(set(self.blocks)), found, strict=True))  # timm gives each block once
        levels = [change(taken[block]) for change, block in zip(self.rescale, self.blocks, strict=True)]
        logits = self._to_pixels(self.decoder(levels), images)
        if not self.training:
            return logits
        return logits, None if self.auxiliary is None else self._to_pixels(self.auxiliary(levels[2]), images)

    def _to_pixels(self, logits: Tensor, images: Tensor) -> Tensor:
        """In float32, without the pixels that timm adds at the right and the bottom to fill its last patches."""
        height, width = images.shape[-2:]
        rows, columns = (
            -(-side // patch) * patch
            for side, patch in zip((height, width), self.vit.patch_embed.patch_size, strict=True)
        )
        return resize(logits.float(), (rows, columns))[..., :height, :width]
