"""The same network with nothing between the residual stream and the matrices: gains, shifts and means folded away.

A norm's gain and bias are a linear map before q, k, v, gate and up, and go into these. A LayerNorm's mean subtraction
is one too: whatever writes to the stream may leave out its mean, and then no reader sees the vector of ones. What is
left are slices in which equal size means equal effect, which is what a decomposition should see.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .slices import FC1, QKV, WRITER_BIASES, WRITERS
from .source import Source
from .tucker import Full


def folded(source: Source) -> Source:
    """A dense source of the same function, layer by layer, whose block norms have gain one and bias zero.

    The final norm stays as it is: what reads it lies outside. With LayerNorm the stream's mean is zero everywhere,
    unless the embedding passes a norm or nothing norms the tokens at the end: then their mean is part of the features.
    Raises TypeError for a template.
    """
    if not isinstance(source.core, Full):
        raise TypeError("only a dense source can be folded")
    weights, blocks, stem = dict(source.core.weights), dict(source.blocks), dict(source.stem)
    for norm, matrix in (("norm1", QKV), ("norm2", FC1)):
        gain, shift = f"{norm}.weight", f"{norm}.bias"
        if shift in blocks:
            bias = matrix.replace("weight", "bias")
            blocks[bias] = blocks[bias] + torch.einsum("lcd,ld->lc", weights[matrix], blocks[shift])
            blocks[shift] = torch.zeros_like(blocks[shift])
        weights[matrix] = weights[matrix] * blocks[gain][:, None]
        blocks[gain] = torch.ones_like(blocks[gain])
        if source.norm == "layer":
            weights[matrix] -= weights[matrix].mean(-1, keepdim=True)  # in place: of the largest there is
    if source.norm == "layer" and "norm.weight" in stem:
        weights |= {name: _centred(weights[name], 1) for name in WRITERS}
        blocks |= {name: _centred(blocks[name], 1) for name in WRITER_BIASES}
    if source.norm == "layer" and stem.keys() & {"norm.weight", "norm_pre.weight"}:
        for name, value in stem.items():
            if "norm" not in name and (name.startswith("patch_embed.proj") or "patch_embed.norm.weight" not in stem):
                stem[name] = _centred(value, 0 if name.startswith("patch_embed.") else -1)
    return replace(source, core=Full(weights), blocks=blocks, stem=stem)


def _centred(value: Tensor, dim: int) -> Tensor:
    return value - value.mean(dim, keepdim=True)
