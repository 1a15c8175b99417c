"""What pre-training costs, by closed formula: equal budgets are stated in these FLOPs. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from sweet.template.sizes import cost

from .config import MaeConfig, ViTConfig


def default_ranks(depth: int, width: int) -> tuple[int, int, int]:
    """(12 L, 0.58 D, 0.58 D), the last two to a multiple of 8: one third of the weights (methods 12.6, 16)."""
    rank = min(width, max(8, 8 * round(0.58 * width / 8)))
    return 12 * depth, rank, rank


def template_parameters(depth: int, width: int, ranks: Sequence[int]) -> dict[str, int]:
    """Core and scalers of a Tucker template, beside the 12 L D^2 that they stand for."""
    r1, r2, r3 = ranks
    return {
        "core": r1 * r2 * r3,
        "scalers": 12 * depth * r1 + width * (r2 + r3),
        "slices": 12 * depth * width * width,
    }


def rebuild_macs(depth: int, width: int, ranks: Sequence[int]) -> int:
    """Multiply-accumulates of one rebuild of all 12 L slices at full width, in the cheaper order."""
    r1, r2, r3 = ranks
    n = 12 * depth
    inner = min(n * r1 * r2 * r3 + n * r2 * r3 * width, r1 * r2 * r3 * width + n * r1 * r2 * width)
    return inner + n * r2 * width * width


def mae_image_flops(config: ViTConfig, mae: MaeConfig) -> int:
    """Forward FLOPs of one image: encoder on the visible patches, decoder on all, attention products included."""
    encoder = cost(config.size, mlp=config.mlp, norm=config.norm, num_classes=0, img_size=config.img_size,
                   patch_size=config.patch_size, in_chans=config.in_chans)  # fmt: skip
    patches, pixels = config.patches, config.in_chans * config.patch_size**2
    width, visible = mae.decoder_width, int(patches * (1 - mae.mask_ratio)) + 1
    linear = (encoder.linear_macs - patches * pixels * config.width) * visible // (patches + 1)
    attention = 2 * config.depth * visible**2 * config.width
    tokens = patches + 1
    decoder = mae.decoder_depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
    ends = visible * config.width * width + (patches + 1 - visible) * width * pixels
    return 2 * (linear + attention + (visible - 1) * pixels * config.width + decoder + ends)


def pretraining_flops(
    config: ViTConfig, mae: MaeConfig, *, images: int, steps: int, ranks: Sequence[int] | None
) -> int:
    """Training FLOPs (forward times three) of full-width steps, rebuilds of a template included."""
    rebuild = 2 * rebuild_macs(config.depth, config.width, ranks) if ranks else 0
    return 3 * (images * mae_image_flops(config, mae) + steps * rebuild)
