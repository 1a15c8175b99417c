"""What pre-training costs, by closed formula: equal budgets are stated in these FLOPs. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

from sweet.models.config import MaeConfig, ViTConfig
from sweet.template.sizes import hidden_features
from sweet.template.tiles import template_counts, tilings

STUDENTS = 5  # of DMAE share the images of one pre-training, one for each size of the paper's table


def template_parameters(depth: int, width: int, ranks: Sequence[int]) -> dict[str, int]:
    """Core and scalers of a Tucker template, while it learns."""
    r1, r2, r3 = ranks
    return {"core": r1 * r2 * r3, "scalers": 12 * depth * r1 + width * (r2 + r3)}


def rebuild_macs(depth: int, width: int, ranks: Sequence[int]) -> int:
    """Multiply-accumulates of one rebuild of all 12 L slices at full width, in the cheaper order."""
    r1, r2, r3 = ranks
    n = 12 * depth
    inner = min(n * r1 * r2 * r3 + n * r2 * r3 * width, r1 * r2 * r3 * width + n * r1 * r2 * width)
    return inner + n * r2 * width * width


@dataclass(frozen=True)
class TemplateCost:
    """Numbers that all slices share, scalers that combine them, and multiply-accumulates of one rebuild of all."""

    shared: int
    scalers: int = 0
    rebuild_macs: int = 0


def template_cost(config: ViTConfig, constraint: str, *, ranks: Sequence[int], tile: int) -> TemplateCost:
    """What a constraint costs at full width. ``linear`` has one size, two blocks, whatever the ranks."""
    depth, width = config.depth, config.width
    if constraint == "tucker":
        counts = template_parameters(depth, width, ranks)
        return TemplateCost(counts["core"], counts["scalers"], rebuild_macs(depth, width, ranks))
    if constraint == "kronecker":
        counted = list(zip(tilings(tile, config.mlp), template_counts(prod(ranks), tile, config.mlp), strict=True))
        scalers = [count * depth * tiling.count(width) for tiling, count in counted]
        return TemplateCost(
            shared=sum(count * tiling.size for tiling, count in counted),
            scalers=sum(scalers),
            rebuild_macs=sum(number * tiling.size for number, (tiling, _) in zip(scalers, counted, strict=True)),
        )
    block = 4 * width**2 + (3 if config.mlp == "swiglu" else 2) * width * config.hidden
    if constraint == "linear":
        return TemplateCost(2 * block, rebuild_macs=depth * block)
    return TemplateCost(depth * block)


@cache
def mae_image_flops(
    config: ViTConfig,
    mae: MaeConfig,
    depth: int | None = None,
    residual: int | None = None,
    inner: int | None = None,
    *,
    masked: bool = False,
    encoder_alone: bool = False,
) -> int:
    """Forward FLOPs of one image: encoder on the visible patches, decoder on all, attention products included.

    ``depth`` blocks, ``residual`` and ``inner`` heads make it a sub-network's; by default the whole. ``masked``: what
    enters and leaves the stream has all its channels (:func:`sweet.template.target.masked_weights`).
    ``encoder_alone``: without the decoder, and what leads to it and to the pixels.
    """
    depth = config.depth if depth is None else depth
    d, k = (config.head_dim * (config.heads if heads is None else heads) for heads in (residual, inner))
    stream = config.width if masked else d
    prefix = config.prefix_tokens
    tokens, pixels = config.patches + prefix, config.in_chans * config.patch_size**2
    visible, width = visible_tokens(config, mae), mae.decoder_width
    matrices = 4 * d * k + (3 if config.mlp == "swiglu" else 2) * d * hidden_features(k, config.mlp, config.mlp_ratio)
    encoder = depth * (visible * matrices + 2 * visible**2 * k) + (visible - prefix) * pixels * stream
    if encoder_alone:
        return 2 * encoder
    decoder = mae.decoder_depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
    ends = visible * stream * width + (tokens - visible) * width * pixels
    return 2 * (encoder + decoder + ends)


def visible_tokens(config: ViTConfig, mae: MaeConfig) -> int:
    """Tokens that an encoder of masked images sees, prefix tokens included."""
    return int(config.patches * (1 - mae.mask_ratio)) + config.prefix_tokens


def supervised_image_flops(config: ViTConfig, classes: int, teacher: ViTConfig | None = None) -> float:
    """FLOPs of one image such that three times as many train on it: forward of the source, and of the teacher once."""
    own = config.cost(classes).flops(attention=True)
    return own + (teacher.cost(classes).flops(attention=True) / 3 if teacher else 0.0)


def fitting_flops(
    source: ViTConfig, target: ViTConfig, mae: MaeConfig, *, images: int, ranks: Sequence[int] | None = None
) -> float:
    """FLOPs of Eq. 9 by the source's features: the target's encoder and a linear map train, the source's is run once.

    In batches of 256; with ``ranks`` all weights are made anew at each step.
    """
    rebuild = rebuild_macs(target.depth, target.width, ranks) if ranks else 0
    reader = 2 * visible_tokens(target, mae) * target.width * source.width
    trained = mae_image_flops(target, mae, encoder_alone=True) + reader
    own = pretraining_flops(trained, images=images, steps=max(1, images // 256), rebuild=rebuild)
    return own + images * mae_image_flops(source, mae, encoder_alone=True)


def distilling_flops(teacher: ViTConfig, student: ViTConfig, mae: MaeConfig, *, images: float) -> float:
    """FLOPs of one student of DMAE: its own training, and three quarters of the teacher's encoder forward."""
    watched = mae_image_flops(teacher, mae, max(1, int(0.75 * teacher.depth + 0.5)), encoder_alone=True)
    return images * (3 * mae_image_flops(student, mae) + watched)


def pretraining_flops(image_flops: float, *, images: int, steps: int, rebuild: int) -> float:
    """Training FLOPs (forward times three); ``rebuild`` are MACs to make all weights of one step."""
    return 3 * (images * image_flops + steps * 2 * rebuild)
