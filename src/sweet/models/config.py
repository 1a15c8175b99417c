"""The shape of a Vision Transformer and of its MAE decoder, in numbers that fit into a JSON file. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from sweet.template.sizes import Cost, Size, cost

LIMITS = {"depth": 1024, "heads": 256, "head_dim": 1024, "img_size": 16384, "patch_size": 1024, "in_chans": 1024}
"""The largest of each; what is larger is a slip or damage, not a Vision Transformer."""
MAX_DECODER_WIDTH = 65536
MAX_GRID = 512  # patches along a side

FAMILIES = {"eva": ("swiglu", "rms"), "vit": ("gelu", "layer")}


def _check_range(name: str, value: int, limit: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if value > limit:
        raise ValueError(f"{name} must be at most {limit}, got {value}")


@dataclass(frozen=True)
class ViTConfig:
    """``family`` eva: SwiGLU, RMSNorm, RoPE (timm's ``Eva``); vit: GELU, LayerNorm, fixed positions.

    ``img_size`` and ``patch_size`` are sides of squares in pixels. ``rope_grid`` is the patch grid of pre-training: at
    other resolutions rotary positions are scaled to it. ``eps`` is that of all norms. Raises ValueError for an unknown
    family, for a number outside :data:`LIMITS` and for an image that is not whole patches.
    """

    depth: int
    heads: int
    head_dim: int
    img_size: int
    patch_size: int
    in_chans: int = 3
    family: str = "eva"
    rope_theta: float = 100.0
    rope_grid: int = 0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}, expected one of {', '.join(FAMILIES)}")
        for name, limit in LIMITS.items():
            _check_range(name, getattr(self, name), limit)
        if self.img_size % self.patch_size:
            raise ValueError(f"image size {self.img_size} is not a multiple of patch size {self.patch_size}")
        if not self.rope_grid:
            object.__setattr__(self, "rope_grid", self.grid)
        if not 1 <= self.rope_grid <= MAX_GRID or self.grid > MAX_GRID:
            raise ValueError(f"a grid of {max(self.rope_grid, self.grid)} patches, should be from 1 to {MAX_GRID}")
        if not (0 < self.rope_theta < inf and 0 < self.eps < 1):
            raise ValueError(f"rope_theta {self.rope_theta:g} and eps {self.eps:g} should be positive, and eps below 1")

    @property
    def mlp(self) -> str:
        """``swiglu`` or ``gelu``."""
        return FAMILIES[self.family][0]

    @property
    def norm(self) -> str:
        """``rms`` or ``layer``."""
        return FAMILIES[self.family][1]

    @property
    def rotary(self) -> bool:
        """Whether positions are rotary; if not, the encoder has a table ``pos_embed``."""
        return self.family == "eva"

    @property
    def size(self) -> Size:
        """Depth and heads."""
        return Size(self.depth, self.heads, self.head_dim)

    @property
    def width(self) -> int:
        """Channels D of the residual stream."""
        return self.heads * self.head_dim

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.img_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches N of an image."""
        return self.grid**2

    def cost(self, num_classes: int = 0) -> Cost:
        """Parameters and FLOPs of a model of this shape, headless by default."""
        return cost(
            self.size,
            mlp=self.mlp,
            norm=self.norm,
            img_size=self.img_size,
            patch_size=self.patch_size,
            in_chans=self.in_chans,
            num_classes=num_classes,
        )

    def resized(self, depth: int, heads: int) -> ViTConfig:
        """The same model at another size."""
        return replace(self, depth=depth, heads=heads)

    def to_dict(self) -> dict[str, int | float | str]:
        """All fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ViTConfig:
        """Inverse of :meth:`to_dict`. Raises TypeError for an unknown field."""
        return cls(**values)


@dataclass(frozen=True)
class MaeConfig:
    """Share of masked patches, per-patch normalised targets, and the size of the decoder (GELU, LayerNorm).

    Raises ValueError for numbers that no decoder has.
    """

    mask_ratio: float = 0.75
    norm_pix: bool = True
    decoder_width: int = 96
    decoder_depth: int = 2
    decoder_head_dim: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio is {self.mask_ratio:g}, should be between 0 and 1")
        if not 0 <= self.decoder_depth <= LIMITS["depth"]:  # 0: what the encoder alone costs
            raise ValueError(f"decoder_depth should be from 0 to {LIMITS['depth']}, got {self.decoder_depth}")
        _check_range("decoder_width", self.decoder_width, MAX_DECODER_WIDTH)
        _check_range("decoder_head_dim", self.decoder_head_dim, LIMITS["head_dim"])
        if self.decoder_width % self.decoder_head_dim:
            raise ValueError(f"decoder_width {self.decoder_width} is no multiple of {self.decoder_head_dim}")
