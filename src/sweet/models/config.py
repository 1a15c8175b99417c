"""The shape of a Vision Transformer and of its MAE decoder, in numbers that fit into a JSON file. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from math import inf

from sweet.template.image_size import ImageSize, joined, read_image_size, sides, size_text, whole_patches
from sweet.template.sizes import SLICES, Cost, Size, cost, hidden_features, slices_of

LIMITS = {"depth": 1024, "heads": 256, "head_dim": 1024, "patch_size": 1024, "in_chans": 1024}
"""The largest of each; what is larger is a slip or damage, not a Vision Transformer."""
MAX_DECODER_WIDTH = 65536
MAX_GRID = 512  # patches along a side

PRESETS: dict[str, dict[str, str]] = {
    "eva": {"mlp": "swiglu", "norm": "rms", "activation": "silu", "positions": "none", "rope": "cat"},
    "vit": {"mlp": "gelu", "norm": "layer", "activation": "gelu", "positions": "table", "rope": "none"},
    "beit": {"mlp": "gelu", "norm": "layer", "activation": "gelu", "positions": "none", "rope": "none"},
}
SWITCHES: dict[str, tuple[str, ...]] = {
    "mlp": ("gelu", "swiglu"),
    "activation": ("gelu", "gelu_tanh", "quick_gelu", "silu"),
    "norm": ("layer", "rms"),
    "final_norm": ("tokens", "pooled", "none"),
    "positions": ("table", "none"),
    "rope": ("cat", "mixed", "dinov3", "none"),
    "rope_layout": ("half", "interleaved"),
    "rope_indexing": ("ij", "xy"),
}


def _check_range(name: str, value: int, limit: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if value > limit:
        raise ValueError(f"{name} must be at most {limit}, got {value}")


def _read_size(name: str, value: object) -> ImageSize:
    try:
        return read_image_size(value)
    except ValueError as problem:
        raise ValueError(f"{name} {problem}") from None


@dataclass(frozen=True)
class ViTConfig:
    """The shape of an encoder: a pre-norm Vision Transformer of timm.

    ``family`` is the class of timm that holds it, and a preset of the switches that are left empty: eva (``Eva``):
    SwiGLU, RMSNorm, rotary positions; vit (``VisionTransformer``): GELU, LayerNorm, a table of positions; beit
    (``Beit``): a bias for each head and relative position. ``entry`` is the architecture of timm that it comes from.

    ``img_size`` is in pixels, a square's side or (height, width); patches are squares of ``patch_size`` pixels. ``eps``
    is that of all norms.

    The switches: ``mlp`` gelu (two matrices) or swiglu (three), with ``activation`` and ``mlp_ratio`` hidden units for
    each channel (0: the family's number); ``norm`` layer or rms; ``final_norm`` of tokens, pooled (after the pooling)
    or none; ``pre_norm``, a norm before the blocks; ``patch_norm``, one within the patch embedding; ``qk_norm``,
    ``attn_norm`` and ``mlp_norm``, of queries and keys, of what the heads put out, of the hidden units;
    ``positions``, a table or none; ``rope``, rotary positions by timm's names or none, with ``rope_theta``,
    ``rope_layout``, ``rope_indexing``, ``rope_offset`` and ``rope_grid``, the patch grid of pre-training, to which cat
    scales other resolutions (-1: it does not); ``class_token`` and ``registers``, the tokens before the patches.

    Raises ValueError for an unknown family or switch, for a number outside :data:`LIMITS` and for an image that is not
    whole patches.
    """

    depth: int
    heads: int
    head_dim: int
    img_size: ImageSize
    patch_size: int
    in_chans: int = 3
    family: str = "eva"
    rope_theta: float = 100.0
    rope_grid: ImageSize = 0
    eps: float = 1e-6
    mlp: str = ""
    activation: str = ""
    mlp_ratio: float = 0.0
    norm: str = ""
    final_norm: str = "tokens"
    pre_norm: bool = False
    patch_norm: bool = False
    qk_norm: bool = False
    attn_norm: bool = False
    mlp_norm: bool = False
    positions: str = ""
    rope: str = ""
    rope_layout: str = "half"
    rope_indexing: str = "ij"
    rope_offset: float = 0.0
    class_token: bool = True
    registers: int = 0
    entry: str = ""

    def __post_init__(self) -> None:
        if self.family not in PRESETS:
            raise ValueError(f"unknown family {self.family!r}, expected one of {', '.join(PRESETS)}")
        for name, limit in LIMITS.items():
            _check_range(name, getattr(self, name), limit)
        object.__setattr__(self, "img_size", _read_size("img_size", self.img_size))
        if not whole_patches(self.img_size, self.patch_size):
            size = size_text(self.img_size)
            raise ValueError(f"image size {size} is not a multiple of patch size {self.patch_size}")
        for name, value in PRESETS[self.family].items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        for name, known in SWITCHES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if not self.rope_grid:
            object.__setattr__(self, "rope_grid", joined(*self.grid))
        if self.rope_grid != -1:
            object.__setattr__(self, "rope_grid", _read_size("rope_grid", self.rope_grid))
        reference = () if self.rope_grid == -1 else sides(self.rope_grid)
        if (most := max(*self.grid, *reference)) > MAX_GRID:
            raise ValueError(f"a grid of {most} patches a side, should be from 1 to {MAX_GRID}")
        if not (0 < self.rope_theta < inf and 0 < self.eps < 1):
            raise ValueError(f"rope_theta {self.rope_theta:g} and eps {self.eps:g} should be positive, and eps below 1")

    @property
    def rotary(self) -> bool:
        """Whether queries and keys are rotated by their positions."""
        return self.rope != "none"

    @property
    def prefix_tokens(self) -> int:
        """Tokens before those of the patches: the class token and registers."""
        return self.class_token + self.registers

    @property
    def hidden(self) -> int:
        """Hidden units of the MLP."""
        return hidden_features(self.width, self.mlp, self.mlp_ratio)

    @property
    def own_hidden(self) -> int:
        """Hidden units where they are not the family's number, else 0."""
        return 0 if self.hidden == hidden_features(self.width, self.mlp) else self.hidden

    @property
    def slices(self) -> int:
        """Slices of a block: twelve with the family's number of hidden units."""
        return slices_of(self.width, self.mlp, self.hidden) if self.own_hidden else SLICES

    @property
    def size(self) -> Size:
        """Depth and heads."""
        return Size(self.depth, self.heads, self.head_dim)

    @property
    def width(self) -> int:
        """Channels D of the residual stream."""
        return self.heads * self.head_dim

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image."""
        height, width = sides(self.img_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def patches(self) -> int:
        """Patches N of an image."""
        return self.grid[0] * self.grid[1]

    def cost(self, num_classes: int = 0) -> Cost:
        """Parameters and FLOPs of a model of this shape, headless by default."""
        found = cost(
            self.size,
            mlp=self.mlp,
            norm=self.norm,
            img_size=self.img_size,
            patch_size=self.patch_size,
            in_chans=self.in_chans,
            num_classes=num_classes,
            ratio=self.mlp_ratio,
            prefix_tokens=self.prefix_tokens,
            final_norm=self.final_norm != "none",
            extra=self._block_extras(),
        )
        norms = self.width * (1 if self.norm == "rms" else 2) * (self.pre_norm + self.patch_norm)
        return replace(found, embedding=found.embedding + norms - self.width * self.pre_norm)  # it has no bias then

    def _block_extras(self) -> int:
        """Parameters of what only some blocks have: norms within, learned frequencies, relative positions."""
        channels = 2 * self.head_dim * self.qk_norm + self.width * self.attn_norm + self.hidden * self.mlp_norm
        norms = channels * (1 if self.norm == "rms" else 2)
        frequencies = self.width if self.rope == "mixed" else 0
        rows, columns = self.grid
        distances = (2 * rows - 1) * (2 * columns - 1) + 3
        relative = self.heads * distances - self.width if self.family == "beit" else 0
        return norms + frequencies + relative

    def resized(self, depth: int, heads: int) -> ViTConfig:
        """The same model at another size."""
        return replace(self, depth=depth, heads=heads)

    def to_dict(self) -> dict[str, ImageSize | float | str]:
        """For JSON: what every model has, and the switches that differ from the family's preset."""
        preset = {field.name: field.default for field in fields(self)} | PRESETS[self.family]
        always = ("in_chans", "family", "rope_theta", "rope_grid", "eps")
        return {name: value for name, value in asdict(self).items() if name in always or value != preset[name]}


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
