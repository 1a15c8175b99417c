"""Cutting a dense source by index: which blocks, channels, head channels and hidden units a smaller network keeps.

Everything outside the blocks follows the residual channels: patch embedding, class token, positions, norms (gain and
bias) and the readers of the MAE decoder. What a head has for itself goes with the head of its first channel. Nothing is
rescaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweet.template.slices import COMMON, MATRICES, WRITERS, select_inner_of_layers, unstack_blocks
from sweet.template.source import Source
from sweet.template.target import INSIDE
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
    layers = list(keep.layers)
    new = {name: value[layers] for name, value in (source.core.weights | source.blocks).items()}
    inside = {name: value for name, value in new.items() if name in (*MATRICES, *INSIDE)}
    new |= select_inner_of_layers(inside, keep.inner, keep.hidden)
    for name, value in new.items():
        if name in WRITERS:
            new[name] = value[:, keep.residual]
        elif name not in (*INSIDE, *COMMON):
            new[name] = value[..., keep.residual]
    stem = {
        name: value[keep.residual] if name == "patch_embed.proj.weight" else value[..., keep.residual]
        for name, value in source.stem.items()
    }
    decoder = {f"decoder.{name}": value for name, value in source.decoder.items()}
    if decoder:
        decoder["decoder.embed.weight"] = decoder["decoder.embed.weight"][:, keep.residual]
    return unstack_blocks(new) | stem | decoder


def channels(heads: Tensor, head_dim: int) -> Tensor:
    """All channels of the heads ``heads`` (..., H) -> (..., H * head_dim)."""
    return (heads[..., None] * head_dim + torch.arange(head_dim)).flatten(-2)
