"""A size (depth L, heads H) and what it costs: parameters and FLOPs by closed formula, without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, gcd

from .image_size import ImageSize, sides

SLICES = 12
"""Slices of a block of ours, see ``slices.py``."""
QKV, PROJ, FC1, FC2 = MATRICES = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
"""The matrices of a block, by timm's names in it."""
Ranks = tuple[int, int, int]
"""(r1, r2, r3) of a Tucker core."""


@dataclass(frozen=True)
class Size:
    """Depth L and heads H of a Vision Transformer; its width is ``heads * head_dim``."""

    depth: int
    heads: int
    head_dim: int = 64

    def __post_init__(self) -> None:
        for name in ("depth", "heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def width(self) -> int:
        """Channels D of the residual stream."""
        return self.heads * self.head_dim

    def __str__(self) -> str:
        return f"L{self.depth}H{self.heads}"

    @classmethod
    def parse(cls, text: str, head_dim: int = 64) -> Size:
        """``"L6H3"`` -> depth 6, heads 3. Raises ValueError on anything else."""
        found = re.fullmatch(r"L(\d+)H(\d+)", text)
        if found is None:
            raise ValueError(f"a size is written L<depth>H<heads>, for example L6H3; got {text!r}")
        return cls(int(found[1]), int(found[2]), head_dim)


def hidden_features(width: int, mlp: str, ratio: float = 0.0) -> int:
    """Hidden units of the MLP: 8 floor(D/3) for SwiGLU (three matrices in eight slices), 4 D for GELU.

    A ``ratio`` other than zero is that of somebody else's network: ratio D, to the nearest.
    """
    if ratio:
        return max(1, round(ratio * width))
    return 8 * (width // 3) if mlp == "swiglu" else 4 * width


def slices_of(width: int, mlp: str, hidden: int) -> int:
    """Slices of D x D that hold one block with ``hidden`` units: twelve with the default number, see ``slices.py``."""
    return 4 + ceil(hidden / (width // 3)) if mlp == "swiglu" else 4 + 2 * ceil(hidden / width)


def default_ranks(depth: int, width: int) -> Ranks:
    """(4 L, D, D), one third of the weights: few whole slices start better than many of low rank (docs/log.md)."""
    return 4 * depth, width, width


def matched_ranks(depth: int, width: int) -> Ranks:
    """(12 L, 0.58 D, 0.58 D), the last two a multiple of 8: a Kronecker template has as many numbers."""
    rank = min(width, max(8, 8 * round(0.58 * width / 8)))
    return 12 * depth, rank, rank


def default_tile(heads: int, head_dim: int) -> int:
    """Channels of a Kronecker tile: three heads (WAVE's 192), or one where three do not divide the width."""
    return gcd(heads, 3) * head_dim


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-accumulates (MACs) of one image's forward pass, of each component of a ViT."""

    blocks: int
    embedding: int
    positions: int
    final_norm: int
    head: int
    linear_macs: int
    attention_macs: int
    head_macs: int
    norm_macs: int

    def parameters(self, *, head: bool = True, positions: bool = True) -> int:
        """Number of parameters, with or without the head and the table of positions."""
        total = self.blocks + self.embedding + self.final_norm
        return total + (self.head if head else 0) + (self.positions if positions else 0)

    def flops(self, *, attention: bool = False, head: bool = True) -> int:
        """Twice the multiply-accumulates, by one of two conventions.

        The default is the paper's Table 1: a counter that takes a norm for five per element and cannot see the two
        products of fused attention. With ``attention``: all matrix products, and nothing else.
        """
        macs = self.linear_macs + (self.attention_macs if attention else self.norm_macs)
        return 2 * (macs + (self.head_macs if head else 0))


def cost(
    size: Size,
    *,
    mlp: str,
    norm: str,
    img_size: ImageSize = 224,
    patch_size: int = 16,
    in_chans: int = 3,
    num_classes: int = 1000,
    ratio: float = 0.0,
    prefix_tokens: int = 1,
    final_norm: bool = True,
    extra: int = 0,
) -> Cost:
    """Count a ViT with biases everywhere. Sizes are in pixels; ``mlp``, ``norm`` as in ``Source``.

    ``prefix_tokens`` are those before the patches, the class token among them; ``extra`` parameters of a block are
    those of norms within it.

    ``positions`` is counted apart, since a rotary model has no such table; the paper's parameter column contains it.
    """
    depth, width = size.depth, size.width
    hidden = hidden_features(width, mlp, ratio)
    fc1_rows = 2 * hidden if mlp == "swiglu" else hidden
    norm_size = width if norm == "rms" else 2 * width
    height, width_px = sides(img_size)
    patches = (height // patch_size) * (width_px // patch_size)
    tokens = patches + prefix_tokens
    pixels = in_chans * patch_size**2
    matrices = 4 * width * width + fc1_rows * width + hidden * width
    biases = 4 * width + fc1_rows + width
    return Cost(
        blocks=depth * (matrices + biases + 2 * norm_size + extra),
        embedding=pixels * width + width + prefix_tokens * width,
        positions=tokens * width,
        final_norm=norm_size if final_norm else 0,
        head=num_classes * width + num_classes if num_classes else 0,
        linear_macs=tokens * depth * matrices + patches * pixels * width,
        attention_macs=2 * depth * tokens * tokens * width,
        head_macs=num_classes * width,
        norm_macs=5 * tokens * width * (2 * depth + 1),
    )
