"""The same function in coordinates that Adam learns faster from (methods 20).

A pre-norm network has free coordinates. Its stream may be rotated, once norm gains are folded into what reads it; each
channel's energy may move between a norm's gain and its readers; and the whole stream may be scaled. None of this
changes what the network computes, and all of it changes what an optimiser makes of a gradient whose steps do not grow
with the weights. Principal order with equal gains sets the first two for a target on the way; here they are set for any
finished start or checkpoint, at its own size and from its own stream. Heads and hidden units stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sweet.template.gains import equalise_gains
from sweet.template.order import embedding_basis, principal_axes
from sweet.template.slices import FC1, FC2, PROJ, QKV

from .config import ViTConfig
from .mae import source_from_state
from .moments import moments_of

IMAGES = 1024  # unlabelled ones, as many as an order is computed from


def condition(
    weights: Mapping[str, Tensor],
    config: ViTConfig,
    batches: Iterable[Tensor],
    *,
    writers: float | None = None,
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """A state dict (timm's names) of the same function: principal axes of its own stream, equal channels.

    ``batches`` are normalised images (B, C, H, W). The decoder's embedding and a classifier's head, which read the
    final norm, are rotated along; without either its gain and bias are left to whatever will read it. Exact but for
    rounding in the type of ``weights``. ``writers`` scales the whole stream, so that the matrices that write to it have
    this root mean square: exact but for the norms' eps.
    """
    whole = {name: value.detach().double() for name, value in weights.items()}
    source = source_from_state({name: value.detach().float() for name, value in weights.items()}, config)
    moments = moments_of(source, config, batches, device=device).stream.double()
    centred = config.norm == "layer"
    rotated, energy = in_principal_axes(whole, moments, depth=config.depth, centred=centred)
    rotated = equalise_gains(rotated, energy)
    if writers is not None:
        rows = [rotated[f"blocks.{i}.{name}"] for i in range(config.depth) for name in (PROJ, FC2)]
        size = (sum(float(w.square().sum()) for w in rows) / sum(w.numel() for w in rows)) ** 0.5
        rotated |= {name: rotated[name] * (writers / size) for name in writing(rotated, config.depth)}
    return {name: rotated[name].to(value.dtype) for name, value in weights.items()}


def writing(weights: Mapping[str, Tensor], depth: int) -> list[str]:
    """Names of everything that is added to the stream; its first axis, or the last of a token, is the stream's."""
    names = [f"blocks.{i}.{name}" for i in range(depth) for name in (PROJ, FC2)]
    names += [name.replace("weight", "bias") for name in names]
    names += ["patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed"]
    return [name for name in names if name in weights]


def in_principal_axes(
    weights: Mapping[str, Tensor], moments: Tensor, *, depth: int, centred: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """The same function with the stream rotated into its principal axes and norms that change nothing.

    Returned with it is the energy (2 L + 1, D) of each channel that each norm then hands on.

    ``moments`` (2 L + 1, D, D) are E[u u^T] at each norm input, u what the norm makes of the stream. ``centred``: it is
    a LayerNorm, which sees D - 1 dimensions; these go to the zero-mean subspace again, and nothing writes the mean.
    """
    axes = principal_axes(moments.sum(0), centred=centred)
    basis = embedding_basis(len(axes), centred=centred, dtype=axes.dtype)
    turn = axes[:, : basis.shape[1]] @ basis.t()
    result = dict(weights)
    for name in writing(weights, depth):
        value = weights[name]
        last = name.endswith(("bias", "cls_token", "pos_embed"))
        result[name] = value @ turn if last else (value.movedim(0, -1) @ turn).movedim(-1, 0)
    readers = [
        (f"blocks.{i}.{n}", [f"blocks.{i}.{m}"]) for i in range(depth) for n, m in (("norm1", QKV), ("norm2", FC1))
    ]
    readers.append(("norm", [name for name in ("decoder.embed.weight", "head.weight") if name in weights]))
    for norm, names in readers:
        gain, shift = weights[f"{norm}.weight"], weights.get(f"{norm}.bias")
        for name in names:
            if shift is not None:
                bias = name.replace("weight", "bias")
                result[bias] = result[bias] + weights[name] @ shift
            result[name] = (weights[name] * gain) @ turn
        result[f"{norm}.weight"] = torch.ones_like(gain)
        if shift is not None:
            result[f"{norm}.bias"] = torch.zeros_like(shift)
    return result, torch.einsum("dk,ndc,ck->nk", turn, moments, turn).clamp_min(0)
