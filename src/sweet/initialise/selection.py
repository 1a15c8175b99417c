"""Cutting a dense source by index: which blocks, channels, head channels and hidden units a smaller network keeps.

Everything outside the blocks follows the residual channels: patch embedding, class token, positions, norms (gain and
bias) and the readers of the MAE decoder. Nothing is rescaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweet.template.slices import FC1, FC2, INNER_BIASES, PROJ, QKV, unstack_blocks
from sweet.template.source import Source
from sweet.template.tucker import Full


@dataclass(frozen=True)
class Selection:
    """What is kept, as indices into the source: n blocks, d channels of the stream and, block by block, the rest."""

    layers: Sequence[int]
    residual: Tensor  # (d,)
    inner: Tensor  # (n, d): channels of q, k and v, and of what proj reads
    hidden: Tensor  # (n, h): units of the MLP


def cut(source: Source, keep: Selection) -> dict[str, Tensor]:
    """Weights of the smaller network (timm's names), ``decoder.*`` included. Raises TypeError for a template."""
    if not isinstance(source.core, Full):
        raise TypeError("only a dense source can be cut by index")
    layers, width = list(keep.layers), source.width
    old = {name: value[layers] for name, value in (source.core.weights | source.blocks).items()}
    hidden = old[FC2].shape[2]
    rows = {  # q, k and v lie one after the other, and so do gate and up
        QKV: torch.cat([keep.inner + first for first in range(0, 3 * width, width)], 1),
        FC1: torch.cat([keep.hidden + first for first in range(0, old[FC1].shape[1], hidden)], 1),
    }
    new = {}
    for name, value in old.items():
        reader = name.replace("bias", "weight")
        if reader in rows:
            value = _take(value, rows[reader])
        elif name in (PROJ, FC2):
            value = _take(value.transpose(1, 2), keep.inner if name == PROJ else keep.hidden).transpose(1, 2)
        if name in (PROJ, FC2):
            value = value[:, keep.residual]
        elif name not in INNER_BIASES:
            value = value[..., keep.residual]
        new[name] = value
    stem = {
        name: value[keep.residual] if name == "patch_embed.proj.weight" else value[..., keep.residual]
        for name, value in source.stem.items()
    }
    decoder = {f"decoder.{name}": value for name, value in source.decoder.items()}
    if decoder:
        decoder["decoder.embed.weight"] = decoder["decoder.embed.weight"][:, keep.residual]
    return unstack_blocks(new) | stem | decoder


def _take(values: Tensor, indices: Tensor) -> Tensor:
    """Rows (n, b) of each of n matrices or vectors (n, a, ...)."""
    return torch.stack([value[index] for value, index in zip(values, indices, strict=True)])


def channels(heads: Tensor, head_dim: int) -> Tensor:
    """All channels of the heads ``heads`` (..., H) -> (..., H * head_dim)."""
    return (heads[..., None] * head_dim + torch.arange(head_dim)).flatten(-2)
