"""The same function in coordinates that Adam learns faster from.

A pre-norm network has free coordinates. Its stream may be rotated, once norm gains are folded into what reads it; each
channel's energy may move between a norm's gain and its readers; and the whole stream may be scaled. None of this
changes what the network computes, and all of it changes what an optimiser makes of a gradient whose steps do not grow
with the weights. Principal order with equal gains sets the first two for a target on the way; here they are set for any
finished start or checkpoint, at its own size and from its own stream. Heads and hidden units stay where they are.

Where the embedding passes a norm, which sees the axes, no rotation leaves the function as it is: there the gains alone
are set, in the stored axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sweet.template.gains import READERS, equalise_gains, last_norm
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
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """A state dict (timm's names) of the same function: principal axes of its own stream, equal channels.

    ``batches`` are normalised images (B, C, H, W). The decoder's embedding and a classifier's head, which read the
    final norm, or the stream where there is none, are rotated along; without either its gain and bias are left to
    whatever will read it. Exact but for rounding in the type of ``weights``.
    """
    source = source_from_state({name: value.detach().float() for name, value in weights.items()}, config)
    return conditioned(weights, config, moments_of(source, config, batches, device=device).stream)


def conditioned(weights: Mapping[str, Tensor], config: ViTConfig, moments: Tensor) -> dict[str, Tensor]:
    """:func:`condition` by moments (2 L + 1, D, D) that are known: E[u u^T] at each norm input."""
    whole = {name: value.detach().double() for name, value in weights.items()}
    rotated, energy = in_principal_axes(
        whole, moments.double(), depth=config.depth, centred=config.norm == "layer", fixed=embedding_norm(config)
    )
    rotated = equalise_gains(rotated, energy)
    return {name: rotated[name].to(value.dtype) for name, value in weights.items()}


def with_stream_scale(weights: Mapping[str, Tensor], depth: int, rms: float) -> dict[str, Tensor]:
    """The whole stream scaled, so that the matrices of the blocks that write to it have this root mean square.

    The same function but for the norms' eps.
    """
    matrices = [weights[f"blocks.{i}.{name}"] for i in range(depth) for name in (PROJ, FC2)]
    size = (sum(float(w.norm()) ** 2 for w in matrices) / sum(w.numel() for w in matrices)) ** 0.5
    factor = rms / size if size else 1.0
    result = {**weights} | {name: weights[name] * factor for name in writing(weights, depth)}
    if last_norm(weights) is None:
        result |= {name: weights[name] / factor for name in READERS if name in weights}
    return result


def embedding_norm(config: ViTConfig) -> bool:
    """Whether the embedding passes a norm, so that the stream cannot be rotated."""
    return config.pre_norm or config.patch_norm


def writing(weights: Mapping[str, Tensor], depth: int) -> list[str]:
    """Names of everything that is added to the stream; its first axis, or the last of a token, is the stream's."""
    names = [f"blocks.{i}.{name}" for i in range(depth) for name in (PROJ, FC2)]
    names += [name.replace("weight", "bias") for name in names]
    tokens = ["cls_token", "reg_token", "pos_embed"]
    if "norm_pre.weight" in weights:
        return [*names, *(name for name in ("norm_pre.weight", "norm_pre.bias") if name in weights)]
    last = "norm" if "patch_embed.norm.weight" in weights else "proj"
    names += [f"patch_embed.{last}.weight", f"patch_embed.{last}.bias", *tokens]
    return [name for name in names if name in weights]


def in_principal_axes(
    weights: Mapping[str, Tensor], moments: Tensor, *, depth: int, centred: bool, fixed: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """The same function with the stream rotated into its principal axes and norms that change nothing.

    Returned with it is the energy (2 L + 1, D) of each channel that each norm then hands on.

    ``moments`` (2 L + 1, D, D) are E[u u^T] at each norm input, u what the norm makes of the stream. ``centred``: it is
    a LayerNorm, which sees D - 1 dimensions; these go to the zero-mean subspace again, and nothing writes the mean,
    unless the stream itself, mean included, is what the network puts out. ``fixed``: the axes stay as they are.
    """
    last = last_norm(weights)
    turn = _turn(moments, centred=centred, fixed=fixed, mean=last is None)
    result = dict(weights)
    for name in [] if fixed else writing(weights, depth):
        value = weights[name]
        vector = name.endswith(("bias", "_token", "pos_embed"))
        result[name] = value @ turn if vector else (value.movedim(0, -1) @ turn).movedim(-1, 0)
    readers = [
        (f"blocks.{i}.{n}", [f"blocks.{i}.{m}"]) for i in range(depth) for n, m in (("norm1", QKV), ("norm2", FC1))
    ]
    heads = [name for name in READERS if name in weights]
    for norm, names in [*readers, *([] if last is None else [(last, heads)])]:
        gain, shift = weights[f"{norm}.weight"], weights.get(f"{norm}.bias")
        for name in names:
            if shift is not None:
                bias = name.replace("weight", "bias")
                result[bias] = result[bias] + weights[name] @ shift
            result[name] = (weights[name] * gain) @ turn
        result[f"{norm}.weight"] = torch.ones_like(gain)
        if shift is not None:
            result[f"{norm}.bias"] = torch.zeros_like(shift)
    if last is None:  # these read the stream
        result |= {name: weights[name] @ turn for name in heads}
    return result, torch.einsum("dk,ndc,ck->nk", turn, moments, turn).clamp_min(0)


def _turn(moments: Tensor, *, centred: bool, fixed: bool, mean: bool) -> Tensor:
    """The map (D, D) of the stream; ``mean``: that of a centred one stays, in its place."""
    if fixed:
        return torch.eye(moments.shape[1], dtype=moments.dtype)
    axes = principal_axes(moments.sum(0), centred=centred)
    basis = embedding_basis(len(axes), centred=centred, dtype=axes.dtype)
    turn = axes[:, : basis.shape[1]] @ basis.t()
    return turn + 1 / len(axes) if centred and mean else turn
