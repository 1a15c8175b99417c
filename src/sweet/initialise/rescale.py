"""The same directions at other scales: what any initialiser's matrices can be given before fine-tuning.

An optimiser whose steps do not grow with the weights (Adam) changes large and lopsided matrices little. ``flat`` raises
the singular values of each block matrix to a power (1: as they are, 0: all equal) and keeps its root mean square;
``noise`` then replaces that share of its energy by random numbers (shrink and perturb: Ash & Adams, "On Warm-Starting
Neural Network Training", NeurIPS 2020, arXiv 1910.08475); ``rms`` then sets the root mean square. None preserves the
function. q, k and v, and gate and up, are matrices of their own. ``writers`` does: it scales the whole stream so that
the matrices that write to it have this root mean square.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sweet.models.condition import with_stream_scale
from sweet.template.slices import FC1, FC2, MATRICES, QKV

from .registry import STREAM

ABOVE_0 = ("rms", STREAM)


def rescaled(
    weights: Mapping[str, Tensor],
    *,
    rms: float | None = None,
    flat: float | None = None,
    noise: float = 0.0,
    writers: float | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """A state dict (timm's names) with the matrices of the blocks rescaled, see above; ``seed`` draws the noise."""
    result = dict(weights)
    generator = torch.Generator().manual_seed(seed)
    stay = rms is None and flat is None and not noise  # then no copy of all of them
    for name in () if stay else [n for n in weights if n.startswith("blocks.") and n.endswith(MATRICES)]:
        value = weights[name]
        count = 3 if name.endswith(QKV) else 1
        if name.endswith(FC1):
            count = value.shape[0] // weights[name.replace(FC1, FC2)].shape[1]
        result[name] = torch.cat([_matrix(matrix, rms, flat, noise, generator) for matrix in value.chunk(count)])
    depth = sum(name.startswith("blocks.") and name.endswith(FC2) for name in result)  # the decoder has blocks too
    return result if writers is None else with_stream_scale(result, depth, writers)


def _matrix(matrix: Tensor, rms: float | None, flat: float | None, noise: float, generator: torch.Generator) -> Tensor:
    size = matrix.square().mean().sqrt()
    if size == 0:
        return matrix
    if flat is not None:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        matrix = (u * s**flat) @ vh
        matrix = matrix * (size / matrix.square().mean().sqrt())
    if noise:
        drawn = torch.randn(matrix.shape, generator=generator)
        matrix = (1 - noise) ** 0.5 * matrix + noise**0.5 * size * drawn
    return matrix if rms is None else matrix * (rms / matrix.square().mean().sqrt())
