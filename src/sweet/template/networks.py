"""Stochastic scaling: which sub-networks one training step computes, in width (Eq. 7-8) and, ours, in depth.

The masks of Eq. 7 act on U and V, hence on the matrices W alone (Eq. 8). Masked V is the same as a narrower inside of
every block. Masked U is *not* the same as a narrower network: patch embedding, class token, norms, biases and decoder
are no part of W, so the stream keeps all its channels. Blocks read and write the live ones only; the others carry the
embedded patches, and the writers' biases, to the final norm and the decoder; every norm divides by the root mean
square of all. ``mask`` computes this, and multiplies only what is live; ``slice`` computes the narrower network, a
method of its own.

Depth is sampled as a target samples it: evenly spaced blocks, always with the first and the last, or the first ones.
(OFA, arXiv 1908.09791, keeps the first blocks too; LayerDrop, arXiv 1909.11556, drops any.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch

MODES = ("none", "independent", "shared", "sandwich")
APPLY = ("mask", "slice")


class Network(NamedTuple):
    """A sub-network of a source: blocks, and heads on the residual and on the inner side."""

    depth: int
    residual: int
    inner: int


def draw_depth(depth: int, *, min_depth: int, full_probability: float, generator: torch.Generator) -> int:
    """Blocks of this step: all with ``full_probability``, otherwise uniform on min_depth..depth."""
    if torch.rand((), generator=generator).item() < full_probability:
        return depth
    return int(torch.randint(min(min_depth, depth), depth + 1, (), generator=generator).item())


def draw_widths(
    mode: str, heads: int, *, min_heads: int, full_probability: float, generator: torch.Generator
) -> list[tuple[int, int]]:
    """(residual heads, inner heads) of each sub-network of this step.

    ``independent`` draws the two sides apart (the paper), ``shared`` once for both, ``sandwich`` takes the full
    network, the smallest and one between (US-Nets, arXiv 1903.05134). A draw is full width with
    ``full_probability``, otherwise uniform on min_heads..heads. Raises ValueError for an unknown mode.
    """
    low = min(min_heads, heads)

    def draw() -> int:
        if torch.rand((), generator=generator).item() < full_probability:
            return heads
        return middle()

    def middle() -> int:
        return int(torch.randint(low, heads + 1, (), generator=generator).item())

    if mode == "none":
        return [(heads, heads)]
    if mode == "independent":
        return [(draw(), draw())]
    if mode == "shared":
        both = draw()
        return [(both, both)]
    if mode == "sandwich":
        between = middle()
        return [(heads, heads), (low, low), (between, between)]
    raise ValueError(f"unknown width mode {mode!r}, expected one of {', '.join(MODES)}")
