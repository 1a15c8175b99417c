"""A block is twelve slices (section 3.2 of the paper): q, k, v, o and eight of the MLP.

A slice is D x D, residual side first, inner side (head channels or hidden units) second: readers of the residual
stream (q, k, v, gate, up) are stored transposed to ``nn.Linear``, writers (o, down) are not. So U always acts on the
residual stream and V always inside a block, and a prefix of both is a genuine narrower block.

SwiGLU has three matrices of 8/3 D; the rule of *interleaved thirds* fits them into eight slices: columns 3p, 3p+1
and 3p+2 of MLP slice j hold gate, up and down of hidden unit (j, p), p < floor(D/3), so the first d columns
of every slice contain whole hidden units. With GELU, slices 0-3 and 4-7 hold the two matrices, hidden unit (j, p < D).

A network of somebody else may have any number of hidden units. Then there are as many MLP slices as hold them, in
order, and columns that no unit uses are zero; its narrower targets take the first units.

*Stacked* weights are what the rest of the package sees: timm's names inside a block, with the layer as first axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .sizes import FC1 as FC1
from .sizes import FC2 as FC2
from .sizes import MATRICES as MATRICES
from .sizes import PROJ as PROJ
from .sizes import QKV as QKV
from .sizes import SLICES as SLICES
from .sizes import hidden_features, slices_of

READERS, WRITERS = (QKV, FC1), (PROJ, FC2)
INNER_BIASES, WRITER_BIASES = ("attn.qkv.bias", "mlp.fc1.bias"), ("attn.proj.bias", "mlp.fc2.bias")
# What only some networks have. Norms inside a block are selected as heads and hidden units are. What a layer has for
# each head has these along the axis of ``HEAD_AXIS``; norms of queries and keys are common to all heads.
INNER_NORMS = ("attn.norm.weight", "attn.norm.bias", "mlp.norm.weight", "mlp.norm.bias")
HEAD_AXIS = {"attn.freqs": 2, "attn.relative_position_bias_table": 2}  # (L, 2, h, d / 2), (L, distances, h)
COMMON = ("attn.q_norm.weight", "attn.q_norm.bias", "attn.k_norm.weight", "attn.k_norm.bias")
BLOCK = 4608  # numbers of one of G's slices at a time: what a product of few rows is fastest with on a CPU
TRANSPOSED = 8  # such blocks are transposed together: whole lines of the cache
Units = tuple[int, int]
"""Hidden units of a source and of a target, where these are not the default numbers."""


def unpack(slices: Tensor, mlp: str, hidden: int = 0) -> dict[str, Tensor]:
    """Slices (L, 12, R, d) -> stacked weights with R residual channels and inner width d.

    Shapes: qkv (L, 3d, R), proj (L, R, d), fc1 (L, 2h | h, R), fc2 (L, R, h). ``hidden`` is h where it is not the
    default number; there may be more than twelve slices then.
    """
    depth, count, residual, inner = slices.shape
    readers, writer, rest = slices.split((3, 1, count - 4), 1)  # an index would fill all of a gradient with zeros
    qkv = readers.transpose(2, 3).reshape(depth, 3 * inner, residual)
    proj = writer.squeeze(1).contiguous()  # a view would keep all slices in memory
    if hidden:
        return {QKV: qkv, PROJ: proj} | _unpack_any(rest, mlp, hidden)
    if mlp == "swiglu":
        units = inner // 3
        gate_up, down = rest[..., : 3 * units].unflatten(3, (units, 3)).split((2, 1), 4)  # L 8 R p 3
        fc1 = gate_up.permute(0, 4, 1, 3, 2).reshape(depth, 16 * units, residual)
        fc2 = down.squeeze(4).transpose(1, 2).reshape(depth, residual, 8 * units)
    else:
        fc1, fc2 = rest.chunk(2, 1)
        fc1 = fc1.transpose(2, 3).reshape(depth, 4 * inner, residual)
        fc2 = fc2.transpose(1, 2).reshape(depth, residual, 4 * inner)
    return {QKV: qkv, PROJ: proj, FC1: fc1, FC2: fc2}


def combined(x: Tensor, core: Tensor, mlp: str) -> dict[str, Tensor]:
    """``unpack`` of the slices sum_a X[m, a] G_a, X (12 L, r1), G (r1, R, d), that moves G's numbers and not theirs.

    Default number of hidden units. With gradients proj and fc2 come as transposed views; without any, the stacked
    weights are the only memory of their size.
    """
    x, core = _as_multiplied(x), _as_multiplied(core)
    r1, residual, inner = core.shape
    depth = x.shape[0] // SLICES
    if not (torch.is_grad_enabled() and (x.requires_grad or core.requires_grad)):
        return _combined_in_place(x.unflatten(0, (depth, SLICES)), core, mlp)
    readers, writer, rest = x.unflatten(0, (depth, SLICES)).split((3, 1, SLICES - 4), 1)
    transposed = core.transpose(1, 2).contiguous()
    qkv, proj = (rows.reshape(-1, r1) @ transposed.flatten(1) for rows in (readers, writer))
    if mlp == "swiglu":
        units = inner // 3
        triples = transposed if inner == 3 * units else transposed[:, : 3 * units]
        # unbound from a copy: the gradient of a slice would be a tensor of the size of G, mostly zeros
        parts = triples.unflatten(1, (units, 3)).transpose(1, 2).contiguous().unbind(1)
        gate, up, fc2 = ((rest.reshape(-1, r1) @ part.flatten(1)).view(depth, SLICES - 4, -1) for part in parts)
        fc1 = torch.stack([gate, up], 1)
    else:
        rows, columns = rest.chunk(2, 1)
        fc1, fc2 = (half.reshape(-1, r1) @ transposed.flatten(1) for half in (rows, columns))
    return {
        QKV: qkv.view(depth, -1, residual),
        PROJ: proj.view(depth, inner, residual).transpose(1, 2),
        FC1: fc1.reshape(depth, fc1.numel() // (depth * residual), residual),
        FC2: fc2.view(depth, fc2.numel() // (depth * residual), residual).transpose(1, 2),
    }


def _as_multiplied(tensor: Tensor) -> Tensor:
    """In the dtype in which autocast multiplies: once, not for every product."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _combined_in_place(x: Tensor, core: Tensor, mlp: str) -> dict[str, Tensor]:
    """:func:`combined` of X (L, 12, r1), written into its result block by block of G, which stays in the cache."""
    (depth, _, r1), (_, residual, inner) = x.shape, core.shape
    step, groups = (3, 8) if mlp == "swiglu" else (1, 4)
    units = inner // step
    qkv = core.new_empty(depth * 3, inner * residual)
    fc1 = core.new_empty(depth, step - 1 or 1, groups, units, residual)
    fc2 = core.new_empty(depth, residual, groups, units)
    readers, writer, rows = (part.reshape(-1, r1) for part in x[:, : 4 + groups].split((3, 1, groups), 1))
    block = max(1, BLOCK // residual // step) * step  # whole triples
    for first in range(0, inner, block):
        if first % (TRANSPOSED * block) == 0:
            transposed = core[:, :, first : first + TRANSPOSED * block].transpose(1, 2).contiguous()
        within = first % (TRANSPOSED * block)
        some = transposed[:, within : within + block]
        torch.mm(readers, some.flatten(1), out=qkv[:, first * residual : (first + some.shape[1]) * residual])
        filled = slice(first // step, min(first // step + some.shape[1] // step, units))
        for part in range(fc1.shape[1]):
            wanted = some[:, part : (filled.stop - filled.start) * step : step]
            made = rows @ wanted.flatten(1)
            fc1[:, part, :, filled] = made.view(depth, groups, wanted.shape[1], residual)
    columns, block = x[:, -groups:].reshape(-1, r1), max(1, BLOCK // max(1, units))
    for first in range(0, residual, block):
        wanted = core[:, first : first + block, step - 1 : units * step : step]
        made = columns @ wanted.flatten(1)
        fc2[:, first : first + block] = made.view(depth, groups, wanted.shape[1], units).transpose(1, 2)
    return {
        QKV: qkv.view(depth, -1, residual),
        PROJ: (writer @ core.flatten(1)).view(depth, residual, inner),
        FC1: fc1.flatten(1, 3),
        FC2: fc2.flatten(2),
    }


def pack(stacked: Mapping[str, Tensor], mlp: str) -> Tensor:
    """Inverse of :func:`unpack`: stacked weights -> slices (L, 12, R, d); columns that no unit uses are zero."""
    proj = stacked[PROJ]
    depth, residual, inner = proj.shape
    hidden = stacked[FC2].shape[2]
    slices = proj.new_zeros(depth, slices_of(inner, mlp, hidden), residual, inner)
    slices[:, :3] = stacked[QKV].unflatten(1, (3, inner)).transpose(2, 3)
    slices[:, 3] = proj
    if hidden != hidden_features(inner, mlp):
        _pack_any(slices[:, 4:], stacked, mlp)
        return slices
    if mlp == "swiglu":
        units = inner // 3
        gate_up = stacked[FC1].unflatten(1, (2, 8, units)).permute(0, 2, 4, 3, 1)  # L 8 R p 2
        down = stacked[FC2].unflatten(2, (8, units)).transpose(1, 2).unsqueeze(4)  # L 8 R p 1
        slices[:, 4:, :, : 3 * units] = torch.cat([gate_up, down], dim=4).flatten(3)
    else:
        slices[:, 4:8] = stacked[FC1].unflatten(1, (4, inner)).transpose(2, 3)
        slices[:, 8:] = stacked[FC2].unflatten(2, (4, inner)).transpose(1, 2)
    return slices


def _unpack_any(slices: Tensor, mlp: str, hidden: int) -> dict[str, Tensor]:
    """fc1 and fc2 of any number of hidden units, which fill the MLP slices (L, n, R, d) in order."""
    if mlp == "swiglu":
        units = slices.shape[3] // 3
        triples = slices[..., : 3 * units].unflatten(3, (units, 3)).transpose(1, 2).flatten(2, 3)[:, :, :hidden]
        return {FC1: triples[..., :2].permute(0, 3, 2, 1).flatten(1, 2), FC2: triples[..., 2].contiguous()}
    rows, columns = (part.transpose(1, 2).flatten(2, 3)[:, :, :hidden] for part in slices.chunk(2, 1))
    return {FC1: rows.transpose(1, 2).contiguous(), FC2: columns.contiguous()}


def _pack_any(slices: Tensor, stacked: Mapping[str, Tensor], mlp: str) -> None:
    """Inverse of :func:`_unpack_any`, written into ``slices``."""
    down = stacked[FC2]
    if mlp == "swiglu":
        units = slices.shape[3] // 3
        triples = torch.cat([stacked[FC1].unflatten(1, (2, -1)).permute(0, 3, 2, 1), down[..., None]], 3)  # L R h 3
        filled = F.pad(triples, (0, 0, 0, slices.shape[1] * units - down.shape[2]))
        slices[..., : 3 * units] = filled.unflatten(2, (-1, units)).transpose(1, 2).flatten(3)
        return
    for part, value in zip(slices.chunk(2, 1), (stacked[FC1].transpose(1, 2), down), strict=True):
        filled = F.pad(value, (0, part.shape[1] * part.shape[3] - down.shape[2]))
        part.copy_(filled.unflatten(2, (part.shape[1], -1)).transpose(1, 2))


def inner_index(source: int, target: int, mlp: str, name: str, units: Units | None = None) -> Tensor:
    """For each entry of a target's inner axis, the entry of the source it comes from.

    ``name`` is the stacked weight (or bias) whose inner axis is meant. Beyond the source, units repeat in order: a
    new head or hidden unit starts as a copy of an old one. ``units`` as in :data:`Units`.
    """
    matrix = name.rsplit(".", 1)[0]
    channels = torch.arange(target) % source
    if matrix in ("attn.proj", "attn.norm"):
        return channels
    if matrix == "attn.qkv":
        return torch.cat([channels + first * source for first in range(3)])
    if units is not None:
        hidden = torch.arange(units[1]) % units[0]
        return torch.cat([hidden, hidden + units[0]]) if (matrix, mlp) == ("mlp.fc1", "swiglu") else hidden
    old, new, groups = (source // 3, target // 3, 8) if mlp == "swiglu" else (source, target, 4)
    hidden = (torch.arange(groups)[:, None] * old + torch.arange(new) % old).flatten()
    return torch.cat([hidden, hidden + groups * old]) if (matrix, mlp) == ("mlp.fc1", "swiglu") else hidden


def is_new_unit(source: int, target: int, mlp: str, name: str, units: Units | None = None) -> Tensor:
    """Which inner units of a larger target the source does not have, for a writer's columns (boolean mask)."""
    if name == PROJ:
        return torch.arange(target) >= source
    if units is not None:
        return torch.arange(units[1]) >= units[0]
    old, new, groups = (source // 3, target // 3, 8) if mlp == "swiglu" else (source, target, 4)
    return (torch.arange(new) >= old).repeat(groups)


def select_inner(
    stacked: Mapping[str, Tensor], source: int, target: int, mlp: str, units: Units | None = None
) -> dict[str, Tensor]:
    """Stacked weights, inner biases and norms of inner width ``source`` -> ``target``, narrower or wider.

    Writers of new units are zero, so that a wider block computes what the narrower one did. ``mlp`` as in
    :class:`sweet.template.source.Source`, ``units`` as in :data:`Units`.
    """
    result = {}
    for name, value in stacked.items():
        if name in HEAD_AXIS:
            heads = value.shape[HEAD_AXIS[name]]
            kept = torch.arange(target * heads // source, device=value.device) % heads
            result[name] = value.index_select(HEAD_AXIS[name], kept)
            continue
        index = _index_on(value.device, source, target, mlp, name, units)
        result[name] = value.index_select(2 if name in WRITERS else 1, index)
        if name in WRITERS and target > source:
            new = is_new_unit(source, target, mlp, name, units).to(value.device)
            result[name] = result[name].masked_fill(new, 0.0)
    return result


def select_inner_of_layers(stacked: Mapping[str, Tensor], channels: Tensor, units: Tensor) -> dict[str, Tensor]:
    """Stacked weights, inner biases and norms of which layer l keeps the head channels ``channels[l]`` (L, c) and the
    hidden units ``units[l]`` (L, n)."""
    result = {}
    for name, value in stacked.items():
        if name in HEAD_AXIS:
            dim = stacked[PROJ].shape[2] // value.shape[HEAD_AXIS[name]]
            heads = (channels[:, ::dim] // dim).view(len(channels), *[1] * (HEAD_AXIS[name] - 1), -1)
            heads = heads.unsqueeze(-1) if value.dim() > heads.dim() else heads
            result[name] = value.take_along_dim(heads, HEAD_AXIS[name])
            continue
        kept, writer = (channels, PROJ) if name.startswith("attn") else (units, FC2)
        if name == writer:
            result[name] = value.take_along_dim(kept[:, None], 2)
            continue
        rows = torch.cat([kept + first for first in range(0, value.shape[1], stacked[writer].shape[2])], 1)
        layers = torch.arange(len(rows), device=rows.device)[:, None] * value.shape[1]
        chosen = value.flatten(0, 1).index_select(0, (rows + layers).flatten())
        result[name] = chosen.unflatten(0, rows.shape)
    return result


@lru_cache(maxsize=256)
def _index_on(
    device: torch.device, source: int, target: int, mlp: str, name: str, units: Units | None = None
) -> Tensor:
    # kept there: a copy at every step would stall a GPU
    return inner_index(source, target, mlp, name, units).to(device)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with ``prefix``, by what follows it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def stack_blocks(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """``blocks.<i>.<name>`` of a state dict -> {name: (L, ...)}."""
    names = [name.removeprefix("blocks.0.") for name in state if name.startswith("blocks.0.")]
    return {name: torch.stack([state[f"blocks.{i}.{name}"] for i in range(depth)]) for name in names}


def unstack_blocks(stacked: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{name: (L, ...)} -> ``blocks.<i>.<name>``."""
    return {f"blocks.{i}.{name}": row for name, rows in stacked.items() for i, row in enumerate(rows.unbind(0))}
