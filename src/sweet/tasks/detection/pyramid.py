"""A simple feature pyramid: several scales out of the one map of a plain ViT (Li et al. 2022, arXiv 2203.16527)."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn


class SimpleFeaturePyramid(nn.Module):
    """A map (B, ``width``, H, W) -> {"0", "1", ..., "pool"}: maps (B, ``channels``, ., .), each half as fine.

    The first one is ``upsample`` (4, 2 or 1) times as fine as the input, the last but one half as fine; "pool" is every
    second point of that. H and W are multiples of 4.
    """

    def __init__(self, width: int, channels: int, upsample: int = 4) -> None:
        super().__init__()
        up4: list[nn.Module] = [
            nn.ConvTranspose2d(width, width // 2, 2, 2),
            LayerNorm2d(width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
        ]
        scales: dict[float, tuple[list[nn.Module], int]] = {
            4: (up4, width // 4),
            2: ([nn.ConvTranspose2d(width, width // 2, 2, 2)], width // 2),
            1: ([], width),
            0.5: ([nn.MaxPool2d(2)], width),
        }
        self.factors = [scale for scale in scales if scale <= upsample]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(inner, channels, 1, bias=False),
                LayerNorm2d(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                LayerNorm2d(channels),
            )
            for layers, inner in (scales[scale] for scale in self.factors)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = OrderedDict((str(place), level(x)) for place, level in enumerate(self.levels))
        maps["pool"] = F.max_pool2d(maps[str(len(maps) - 1)], 1, 2)
        return maps
