"""Width-wise stochastic scaling (Eq. 7-8): which sub-networks one training step computes.

A mask that keeps the first rows of U and V is the same as a narrower network; we compute that network.
"""

from __future__ import annotations

import torch

MODES = ("none", "independent", "shared", "sandwich")


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
