"""A block is twelve slices (section 3.2 of the paper): q, k, v, o and eight of the MLP.

A slice is D x D, residual side first, inner side (head channels or hidden units) second: readers of the residual
stream (q, k, v, gate, up) are stored transposed to ``nn.Linear``, writers (o, down) are not. So U always acts on the
residual stream and V always inside a block, and a prefix of both is a genuine narrower block.

SwiGLU has three matrices of 8/3 D; the rule of *interleaved thirds* fits them into eight slices: columns 3p, 3p+1
and 3p+2 of MLP slice j hold gate, up and down of hidden unit (j, p), p < floor(D/3), so the first d columns
of every slice contain whole hidden units. With GELU, slices 0-3 and 4-7 hold the two matrices, hidden unit (j, p < D).

*Stacked* weights are what the rest of the package sees: timm's names inside a block, with the layer as first axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

SLICES = 12
QKV, PROJ, FC1, FC2 = "attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"
READERS, WRITERS = (QKV, FC1), (PROJ, FC2)
MATRICES = (QKV, PROJ, FC1, FC2)
INNER_BIASES, WRITER_BIASES = ("attn.qkv.bias", "mlp.fc1.bias"), ("attn.proj.bias", "mlp.fc2.bias")


def unpack(slices: Tensor, mlp: str) -> dict[str, Tensor]:
    """Slices (L, 12, R, d) -> stacked weights with R residual channels and inner width d.

    Shapes: qkv (L, 3d, R), proj (L, R, d), fc1 (L, 2h | h, R), fc2 (L, R, h).
    """
    depth, _, residual, inner = slices.shape
    qkv = slices[:, :3].transpose(2, 3).reshape(depth, 3 * inner, residual)
    proj = slices[:, 3].contiguous()  # a view would keep all slices in memory
    if mlp == "swiglu":
        units = inner // 3
        triples = slices[:, 4:, :, : 3 * units].unflatten(3, (units, 3))  # L 8 R p 3
        fc1 = triples[..., :2].permute(0, 4, 1, 3, 2).reshape(depth, 16 * units, residual)
        fc2 = triples[..., 2].transpose(1, 2).reshape(depth, residual, 8 * units)
    else:
        fc1 = slices[:, 4:8].transpose(2, 3).reshape(depth, 4 * inner, residual)
        fc2 = slices[:, 8:].transpose(1, 2).reshape(depth, residual, 4 * inner)
    return {QKV: qkv, PROJ: proj, FC1: fc1, FC2: fc2}


def pack(stacked: Mapping[str, Tensor], mlp: str) -> Tensor:
    """Inverse of :func:`unpack`: stacked weights -> slices (L, 12, R, d); columns that no unit uses are zero."""
    proj = stacked[PROJ]
    depth, residual, inner = proj.shape
    slices = proj.new_zeros(depth, SLICES, residual, inner)
    slices[:, :3] = stacked[QKV].unflatten(1, (3, inner)).transpose(2, 3)
    slices[:, 3] = proj
    if mlp == "swiglu":
        units = inner // 3
        gate_up = stacked[FC1].unflatten(1, (2, 8, units)).permute(0, 2, 4, 3, 1)  # L 8 R p 2
        down = stacked[FC2].unflatten(2, (8, units)).transpose(1, 2).unsqueeze(4)  # L 8 R p 1
        slices[:, 4:, :, : 3 * units] = torch.cat([gate_up, down], dim=4).flatten(3)
    else:
        slices[:, 4:8] = stacked[FC1].unflatten(1, (4, inner)).transpose(2, 3)
        slices[:, 8:] = stacked[FC2].unflatten(2, (4, inner)).transpose(1, 2)
    return slices


def inner_index(source: int, target: int, mlp: str, name: str) -> Tensor:
    """For each entry of a target's inner axis, the entry of the source it comes from.

    ``name`` is the stacked weight (or bias) whose inner axis is meant. Beyond the source, units repeat in order: a
    new head or hidden unit starts as a copy of an old one.
    """
    matrix = name.rsplit(".", 1)[0]
    channels = torch.arange(target) % source
    if matrix == "attn.proj":
        return channels
    if matrix == "attn.qkv":
        return torch.cat([channels + first * source for first in range(3)])
    old, new, groups = (source // 3, target // 3, 8) if mlp == "swiglu" else (source, target, 4)
    hidden = (torch.arange(groups)[:, None] * old + torch.arange(new) % old).flatten()
    return torch.cat([hidden, hidden + groups * old]) if (matrix, mlp) == ("mlp.fc1", "swiglu") else hidden


def is_new_unit(source: int, target: int, mlp: str, name: str) -> Tensor:
    """Which inner units of a larger target the source does not have, for a writer's columns (boolean mask)."""
    if name == PROJ:
        return torch.arange(target) >= source
    old, new, groups = (source // 3, target // 3, 8) if mlp == "swiglu" else (source, target, 4)
    return (torch.arange(new) >= old).repeat(groups)


def select_inner(stacked: Mapping[str, Tensor], source: int, target: int, mlp: str) -> dict[str, Tensor]:
    """Stacked weights and inner biases of inner width ``source`` -> ``target``, narrower or wider.

    Writers of new units are zero, so that a wider block computes what the narrower one did. ``mlp`` as in
    :class:`sweet.template.source.Source`.
    """
    result = {}
    for name, value in stacked.items():
        index = _index_on(value.device, source, target, mlp, name)
        result[name] = value.index_select(2 if name in WRITERS else 1, index)
        if name in WRITERS and target > source:
            new = is_new_unit(source, target, mlp, name).to(value.device)
            result[name] = result[name].masked_fill(new, 0.0)
    return result


def select_inner_of_layers(stacked: Mapping[str, Tensor], channels: Tensor, units: Tensor) -> dict[str, Tensor]:
    """Stacked weights and inner biases of which layer l keeps the head channels ``channels[l]`` (L, c) and the hidden
    units ``units[l]`` (L, n)."""
    result = {}
    for name, value in stacked.items():
        kept, writer = (channels, PROJ) if name.startswith("attn") else (units, FC2)
        if name == writer:
            result[name] = value.take_along_dim(kept[:, None], 2)
            continue
        rows = torch.cat([kept + first for first in range(0, value.shape[1], stacked[writer].shape[2])], 1)
        result[name] = value.take_along_dim(rows[..., None] if value.dim() == 3 else rows, 1)
    return result


@lru_cache(maxsize=256)
def _index_on(device: torch.device, source: int, target: int, mlp: str, name: str) -> Tensor:
    return inner_index(source, target, mlp, name).to(device)  # kept there: a copy at every step would stall a GPU


def stack_blocks(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """``blocks.<i>.<name>`` of a state dict -> {name: (L, ...)}."""
    names = [name.removeprefix("blocks.0.") for name in state if name.startswith("blocks.0.")]
    return {name: torch.stack([state[f"blocks.{i}.{name}"] for i in range(depth)]) for name in names}


def unstack_blocks(stacked: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{name: (L, ...)} -> ``blocks.<i>.<name>``."""
    return {f"blocks.{i}.{name}": row for name, rows in stacked.items() for i, row in enumerate(rows.unbind(0))}
