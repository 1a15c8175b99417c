"""TLEG's linear rule (Xia et al., "Transformer as Linear Expansion of Learngene", AAAI 2024, arXiv 2312.05614).

Block l of a network of L blocks is W_l = base + (l / L) slope, for weights, biases and norm parameters alike (methods
6). The paper trains base and slope inside an auxiliary network; from a source that is there already we fit them in
closed form, by least squares over its blocks, l = 0 .. L - 1: exact where the source obeys the rule. It is the Tucker
product with a fixed X, whose row (l, c) has 1 in column (base, c) and l / L in column (slope, c), and U = V = I.
Widths are prefix slices, as in the paper's constraint table, everything outside the blocks included, and grow as
SWEET's do. No switches.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sweet.data import ImageSource
from sweet.models.store import StoredSource
from sweet.template.sizes import Size
from sweet.template.target import target_weights
from sweet.template.tucker import Full


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Weights of any depth and width from a dense source."""
    dense = source.source
    if not isinstance(dense.core, Full):
        raise TypeError("the linear rule is fitted to a dense source")
    line = replace(
        dense,
        core=Full({name: on_a_line(rows, size.depth) for name, rows in dense.core.weights.items()}),
        blocks={name: on_a_line(rows, size.depth) for name, rows in dense.blocks.items()},
        order=None,
    )
    return target_weights(line, size.depth, size.width, order="prefix", layers="first", seed=seed)


def on_a_line(rows: Tensor, depth: int) -> Tensor:
    """Rows (L, ...) of one tensor -> (depth, ...) by the linear rule that fits them best."""
    base, slope = linear_fit(rows)
    return torch.stack([base + layer / depth * slope for layer in range(depth)])


def linear_fit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(base, slope) minimising sum_l |rows[l] - base - (l / L) slope|^2; a single row has slope zero."""
    at = (torch.arange(len(rows), dtype=rows.dtype) / len(rows)).view(-1, *[1] * (rows.dim() - 1))
    mean, centred = rows.mean(0), at - at.mean()
    slope = (centred * (rows - mean)).sum(0) / centred.square().sum().clamp_min(torch.finfo(rows.dtype).tiny)
    return mean - at.mean() * slope, slope
