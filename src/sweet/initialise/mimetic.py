"""Mimetic initialisation of self-attention (Trockman & Kolter, ICML 2023, arXiv 2305.09828).

Attention that looks like a pre-trained one, from no source at all. With Z of independent N(0, 1/D) entries,

    W_q W_k^T ~ alpha_qk Z + beta_qk I    for each head, the best approximation of rank head_dim
    W_v W_proj = alpha_vo Z - beta_vo I   over all heads together, exactly

both split by a singular value decomposition, the square roots of the singular values on either side. Biases of q, k, v
and proj are zero; the rest is timm's random initialisation. The recipe's sine positions are there in the ``vit``
family; the ``eva`` family has rotary ones instead, which rotate q and k apart, so that the product holds between equal
positions.

Switches: the published ``alpha_qk``, ``beta_qk`` = 0.7 and ``alpha_vo``, ``beta_vo`` = 0.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sweet.data import ImageSource
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size
from sweet.template.slices import PROJ, QKV

from . import random


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    alpha_qk: float = 0.7,
    beta_qk: float = 0.7,
    alpha_vo: float = 0.4,
    beta_vo: float = 0.4,
) -> dict[str, Tensor]:
    """Weights of any size, drawn by ``seed``; of the source only the shape of its images and heads is used."""
    generator = torch.Generator().manual_seed(seed)
    state = random.initialise(source, size, seed=seed)

    def noisy_identity(alpha: float, beta: float) -> tuple[Tensor, Tensor]:
        """A, B (D, D) with A B^T = alpha Z + beta I, columns by falling singular value."""
        noise = torch.randn(size.width, size.width, generator=generator) * size.width**-0.5
        u, s, vh = torch.linalg.svd(alpha * noise + beta * torch.eye(size.width))
        return u * s.sqrt(), vh.t() * s.sqrt()

    for layer in range(size.depth):
        heads = [noisy_identity(alpha_qk, beta_qk) for _ in range(size.heads)]
        q, k = (torch.cat([pair[side][:, : size.head_dim] for pair in heads], 1) for side in (0, 1))
        v, proj = noisy_identity(alpha_vo, -beta_vo)
        block = f"blocks.{layer}."
        state[block + QKV] = torch.cat([q, k, v], 1).t().contiguous()
        state[block + PROJ] = proj.contiguous()
        for name in (QKV, PROJ):
            state[block + name.replace("weight", "bias")].zero_()
    return state
