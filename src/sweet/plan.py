"""What a recipe will do, by arithmetic alone: shapes, parameters, FLOPs, files. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

from sweet.files import TENSORS
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.costs import (
    TemplateCost,
    default_ranks,
    default_tile,
    mae_image_flops,
    matched_ranks,
    pretraining_flops,
    supervised_image_flops,
    template_cost,
)
from sweet.recipe import ModelKeys, PretrainRecipe
from sweet.template.sizes import Size

RUN_FILES = ["config.json", "recipe.yaml", "README.md", "SHA256SUMS", "metrics.jsonl", "tensorboard/", "checkpoints/"]


def vit_config(model: ModelKeys, img_size: int) -> ViTConfig:
    """The encoder of a recipe; rotary base 100 for grids up to 16 x 16, 10000 above."""
    grid = img_size // model.patch_size
    return ViTConfig(
        depth=model.depth,
        heads=model.heads,
        head_dim=model.head_dim,
        img_size=img_size,
        patch_size=model.patch_size,
        in_chans=model.in_chans,
        family=model.family,
        rope_theta=model.rope_theta or (100.0 if grid <= 16 else 10000.0),
    )


def ranks_of(recipe: PretrainRecipe) -> tuple[int, int, int]:
    """Ranks of the core that is written."""
    template, depth, width = recipe.template, recipe.model.depth, recipe.model.width
    if template.turned:
        return 12 * depth, width, width
    return template.ranks or default_ranks(depth, width)


def trained_ranks(recipe: PretrainRecipe) -> tuple[int, int, int]:
    """Ranks of the core that is learned. Of Kronecker tiles, which have none, those of a core of as many numbers."""
    template = recipe.template
    if template.trained != "kronecker":
        return ranks_of(recipe)
    given = None if template.turned else template.ranks
    return given or matched_ranks(recipe.model.depth, recipe.model.width)


def tile_of(recipe: PretrainRecipe) -> int:
    return recipe.template.tile or default_tile(recipe.model.heads, recipe.model.head_dim)


def template_cost_of(recipe: PretrainRecipe, config: ViTConfig) -> TemplateCost:
    """Numbers of the template that is written, and what a step of learning it adds."""
    told, tile = recipe.template, tile_of(recipe)
    learned = template_cost(config, told.trained, ranks=trained_ranks(recipe), tile=tile)
    if not told.turned:
        return learned
    return replace(
        template_cost(config, told.constraint, ranks=ranks_of(recipe), tile=tile), rebuild_macs=learned.rebuild_macs
    )


def size_table(config: ViTConfig, sizes: list[Size], num_classes: int) -> list[dict[str, Any]]:
    """Parameters (M) and forward FLOPs (G) of sizes, by both conventions (methods 14.1)."""
    rows = []
    for size in sizes:
        c = config.resized(size.depth, size.heads).cost(num_classes)
        positions = config.family == "vit"
        rows.append(
            {
                "size": str(size),
                "width": size.width,
                "params_m": round(c.parameters(positions=positions) / 1e6, 3),
                "params_no_head_m": round(c.parameters(head=False, positions=positions) / 1e6, 3),
                "gflops": round(c.flops() / 1e9, 3),
                "gflops_with_attention": round(c.flops(attention=True) / 1e9, 3),
            }
        )
    return rows


def bench_sizes(head_dim: int) -> list[Size]:
    return [Size.parse(text, head_dim) for text in ("L3H12", "L6H12", "L6H6", "L12H6", "L12H3")]


def pretraining_cost(recipe: PretrainRecipe, images: int) -> float:
    """FLOPs of a pre-training on a set of ``images``; of widths and depths that it draws, the expectation.

    A teacher is taken for as large as the source.
    """
    config = vit_config(recipe.model, recipe.data.img_size)
    images = min(images, recipe.data.limit or images)
    steps = max(1, round(recipe.epochs * max(1, images // recipe.batch_size)))
    steps = min(steps, recipe.max_steps or steps)
    rebuild = template_cost_of(recipe, config).rebuild_macs
    per_image = _image_flops(recipe, config)
    return pretraining_flops(per_image, images=steps * recipe.batch_size, steps=steps, rebuild=rebuild)


def _image_flops(recipe: PretrainRecipe, config: ViTConfig) -> float:
    """Forward FLOPs of an image, three times of which train on it; of what is drawn, the expectation."""
    if recipe.objective == "supervised":
        return supervised_image_flops(config, 0, *([config] if recipe.teacher else []))
    mae = MaeConfig(**recipe.mae.model_dump())
    masked, shares = recipe.width.apply == "mask", expected_networks(recipe).items()
    return sum(share * mae_image_flops(config, mae, *one, masked=masked) for one, share in shares)


def expected_networks(recipe: PretrainRecipe) -> dict[tuple[int, int, int], float]:
    """{(blocks, residual heads, inner heads): how often a step computes it}, over a whole training.

    The distribution that :mod:`sweet.template.networks` draws from.
    """
    width, depth, heads, blocks = recipe.width, recipe.depth, recipe.model.heads, recipe.model.depth
    sides = _drawn(heads, width.min_heads, width.full_probability)
    middle = _drawn(heads, width.min_heads, 0.0)
    modes: dict[str, dict[tuple[int, int], float]] = {
        "none": {(heads, heads): 1.0},
        "independent": {(a, b): sides[a] * sides[b] for a, b in product(sides, sides)},
        "shared": {(a, a): share for a, share in sides.items()},
        "sandwich": {(a, a): share + (a == heads) + (a == min(middle)) for a, share in middle.items()},
    }
    depths = _drawn(blocks, depth.min_blocks, depth.full_probability) if depth.mode == "even" else {blocks: 1.0}
    result: dict[tuple[int, int, int], float] = {}
    # both set in at a share of the training, each its own
    edges = sorted({0.0, width.start, depth.start, 1.0})
    for begin, end in pairwise(edges):
        widths = modes[width.mode if begin >= width.start else "none"]
        for (count, share), ((a, b), other) in product(
            (depths if begin >= depth.start else {blocks: 1.0}).items(), widths.items()
        ):
            result[count, a, b] = result.get((count, a, b), 0.0) + (end - begin) * share * other
    return result


def _drawn(full: int, low: int, full_probability: float) -> dict[int, float]:
    """Full with a probability, otherwise uniform on low..full."""
    values = range(min(low, full), full + 1)
    return {v: (1 - full_probability) / len(values) + full_probability * (v == full) for v in values}


def plan(recipe: PretrainRecipe) -> dict[str, Any]:
    """Everything about a pre-training run that can be known without running it."""
    config = vit_config(recipe.model, recipe.data.img_size)
    constraint, template = recipe.template.constraint, template_cost_of(recipe, config)
    rebuild = pretraining_flops(0, images=0, steps=1, rebuild=template.rebuild_macs)
    step = rebuild + pretraining_flops(_image_flops(recipe, config), images=recipe.batch_size, steps=1, rebuild=0)
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "data": recipe.data.source or "give it with --data",
        "encoder": f"{config.size} {config.family}, width {config.width}",
        "images": f"{config.img_size} px, patch {config.patch_size}",
        "constraint": constraint,
        "epochs": recipe.epochs,
        "max_steps": recipe.max_steps,
        "batch_size": recipe.batch_size,
        "step_gflops": round(step / 1e9, 2),
        "writes": [TENSORS["dense" if constraint == "none" else "template"], *RUN_FILES],
    }
    if constraint == "tucker":
        result |= {"ranks": list(ranks_of(recipe)), "learn": recipe.template.learn}
    if recipe.template.trained == "kronecker":
        result["tile"] = tile_of(recipe)
    if constraint != "none":
        parameters = template.shared + template.scalers
        result |= {
            "template_params_m": round(parameters / 1e6, 3),
            "share_of_slices": round(parameters / (12 * config.depth * config.width**2), 3),
            "rebuild_share_of_step": round(rebuild / step, 3),
        }
    result["sizes"] = size_table(config, bench_sizes(config.head_dim), num_classes=1000)
    return result
