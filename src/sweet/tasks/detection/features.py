"""Feature maps of a timm ViT at chosen blocks, for images of any size, with window attention for large ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor


def global_blocks(depth: int) -> list[int]:
    """Blocks that see the whole image among those that see windows: every third, the last one always (ViTDet)."""
    return [index for index in range(depth) if (depth - 1 - index) % 3 == 0]


def feature_maps(vit: Any, images: Tensor, indices: Sequence[int], *, window: int = 0) -> list[Tensor]:
    """Images (B, C, H, W), sides multiples of the patch size -> a map (B, D, H/p, W/p) after each block of ``indices``.

    The last block's is taken after the final norm. ``vit`` was built with ``dynamic_img_size``; without windows the
    maps are those of its ``forward_intermediates``. With ``window`` > 0 blocks other than :func:`global_blocks` attend
    within windows of so many patches a side, wherever the map is at least two windows wide or high (Li et al. 2022,
    ViTDet, arXiv 2203.16527). Rotary positions in a window are those in the image. Each window has a copy of the class
    token, and the mean of what comes out of the copies goes on.
    """
    x = vit.patch_embed(images)
    _, height, width, channels = x.shape
    prefix = vit.num_prefix_tokens
    known = [token for token in (vit.cls_token, vit.reg_token) if token is not None]
    x = torch.cat([*(token.expand(len(x), -1, -1) for token in known), x.flatten(1, 2)], 1)
    if vit.pos_embed is not None:
        x = x + resample_abs_pos_embed(
            vit.pos_embed, new_size=(height, width), old_size=vit.patch_embed.grid_size, num_prefix_tokens=prefix
        )
    x = vit.norm_pre(x)
    rope = getattr(vit, "rope", None)
    positions = None if rope is None else rope.get_embed(shape=(height, width))
    windows = Windows(height, width, window, prefix) if window and max(height, width) >= 2 * window else None
    seeing_all, maps = global_blocks(len(vit.blocks)), []
    for index, block in enumerate(vit.blocks):
        table = positions  # one for all blocks, or one for each
        if positions is not None and positions.dim() == 4:
            table = positions[index]
        if windows is not None and index not in seeing_all:
            x = windows.through(block, x, table)
        else:
            x = block(x) if table is None else block(x, rope=table)
        if index in indices:
            last = vit.norm(x) if index == len(vit.blocks) - 1 else x
            maps.append(last[:, prefix:].transpose(1, 2).reshape(-1, channels, height, width))
    return maps


class Windows:
    """How a map of ``height`` x ``width`` patches is cut into squares of ``side``; incomplete ones are filled up.

    ``prefix`` tokens come before the patches.
    """

    def __init__(self, height: int, width: int, side: int, prefix: int = 1) -> None:
        self.height, self.width, self.side, self.prefix = height, width, side, prefix
        self.rows, self.columns = -(-height // side), -(-width // side)

    def cut(self, x: Tensor) -> Tensor:
        """(B, H W, D) -> (B n, side^2, D), zeros where a window reaches beyond the map."""
        side, rows, columns = self.side, self.rows, self.columns
        x = x.unflatten(1, (self.height, self.width))
        x = F.pad(x, (0, 0, 0, columns * side - self.width, 0, rows * side - self.height))
        x = x.unflatten(1, (rows, side)).unflatten(3, (columns, side))
        return x.transpose(2, 3).reshape(-1, side * side, x.shape[-1])

    def join(self, x: Tensor) -> Tensor:
        """(B n, side^2, D) -> (B, H W, D)."""
        side = self.side
        x = x.reshape(-1, self.rows, self.columns, side, side, x.shape[-1]).transpose(2, 3)
        x = x.flatten(3, 4).flatten(1, 2)
        return x[:, : self.height, : self.width].flatten(1, 2)

    def through(self, block: Any, x: Tensor, positions: Tensor | None) -> Tensor:
        """timm's pre-norm block on (B, P + H W, D), in which patches attend within their window only."""
        batch, count, prefix = len(x), self.rows * self.columns, self.prefix
        inner = block.norm1(x)
        copies = inner[:, :prefix].repeat_interleave(count, 0)
        inner = torch.cat([copies, self.cut(inner[:, prefix:])], 1)
        options: dict[str, Tensor] = {}
        if positions is not None:  # (B n, 1 | h, side^2, 2 d): one table for each window, for all heads or for each
            tables = positions if positions.dim() == 3 else positions[None]
            cut = self.cut(tables).unflatten(0, (len(tables), count)).transpose(0, 1)
            options["rope"] = cut.repeat(batch, 1, 1, 1)
        if self.rows * self.columns * self.side**2 > self.height * self.width:
            real = self.cut(x.new_ones(1, self.height * self.width, 1))[..., 0] > 0
            real = F.pad(real, (prefix, 0), value=True)
            options["attn_mask"] = real.repeat(batch, 1)[:, None, None]
        inner = block.attn(inner, **options)
        own = inner[:, :prefix].unflatten(0, (batch, count)).mean(1)
        x = x + block.drop_path1(torch.cat([own, self.join(inner[:, prefix:])], 1))
        return x + block.drop_path2(block.mlp(block.norm2(x)))
