"""TLEG's linear rule (Xia et al., "Transformer as Linear Expansion of Learngene", AAAI 2024, arXiv 2312.05614).

Block l of a network of L blocks is W_l = base + (l / L) slope, for weights, biases and norm parameters alike (methods
6). The paper trains base and slope inside an auxiliary network: a source of ``template.constraint=linear``, used as it
is. To a dense source we fit them in closed form, by least squares over its blocks, l = 0 .. L - 1: exact where the
source obeys the rule. Widths are prefix slices, as in the paper's constraint table, everything outside the blocks
included, and grow as SWEET's do. No switches.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sweet.data import ImageSource
from sweet.storage.folders import StoredSource
from sweet.template.constraints import Linear
from sweet.template.sizes import Size
from sweet.template.source import Source
from sweet.template.target import target_weights

from .sweet import best_gains


def initialise(
    source: StoredSource, size: Size, *, data: ImageSource | None = None, budget: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Weights of any depth and width from a linear or a dense source."""
    line = source.source if isinstance(source.source.core, Linear) else fitted(source.source)
    gains = best_gains(source, "prefix")
    return target_weights(line, size.depth, size.width, order="prefix", layers="first", gains=gains, seed=seed)


def fitted(dense: Source) -> Source:
    """The linear source whose blocks are nearest to those of a dense one."""
    core = Linear({name: linear_fit(rows) for name, rows in dense.core.tensors().items()}, dense.depth)
    return replace(dense, core=core, blocks={name: linear_fit(rows) for name, rows in dense.blocks.items()})


def linear_fit(rows: Tensor) -> Tensor:
    """Base and slope (2, ...) minimising sum_l |rows[l] - base - (l / L) slope|^2; a single row has slope zero."""
    at = (torch.arange(len(rows), dtype=rows.dtype) / len(rows)).view(-1, *[1] * (rows.dim() - 1))
    mean, centred = rows.mean(0), at - at.mean()
    slope = (centred * (rows - mean)).sum(0) / centred.square().sum().clamp_min(torch.finfo(rows.dtype).tiny)
    return torch.stack([mean - at.mean() * slope, slope])
