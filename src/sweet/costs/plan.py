"""What a recipe will do, by arithmetic alone: shapes, parameters, FLOPs, files. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise, product

from sweet.recipes.resolved import ResolvedRecipe, resolve
from sweet.recipes.schema import PretrainRecipe
from sweet.storage.layout import RUN_FILES, TENSORS
from sweet.template.image_size import size_text

from .flops import TemplateCost, mae_image_flops, pretraining_flops, supervised_image_flops, template_cost
from .gpus import GpuGuess
from .memory import training_memory
from .table import example_sizes, size_table

SHOWN_HOURS = 0.1  # of one GPU, from which on a plan says so unasked


def template_cost_of(resolved: ResolvedRecipe) -> TemplateCost:
    """Numbers of the template that is written, and what a step of learning it adds."""
    keys, vit, tile = resolved.recipe.template, resolved.vit, resolved.tile
    learned = template_cost(vit, keys.trained, ranks=resolved.learned_ranks, tile=tile)
    if keys.constraint != "tucker":
        return learned
    written = template_cost(vit, keys.constraint, ranks=resolved.ranks, tile=tile)
    square = resolved.ranks[1:] == (vit.width, vit.width)  # U and V are stored in the core then
    scalers = written.scalers - 2 * vit.width**2 * square
    return replace(written, scalers=scalers, rebuild_macs=learned.rebuild_macs)


def pretraining_cost(resolved: ResolvedRecipe, images: int) -> float:
    """FLOPs of a pre-training on a set of ``images``; of widths and depths that it draws, the expectation.

    A teacher is taken for as large as the source.
    """
    steps = resolved.steps(images)
    return pretraining_flops(
        expected_image_flops(resolved),
        images=steps * resolved.recipe.batch_size,
        steps=steps,
        rebuild=template_cost_of(resolved).rebuild_macs,
    )


def expected_image_flops(resolved: ResolvedRecipe) -> float:
    """Forward FLOPs of an image, three times of which train on it; of what is drawn, the expectation."""
    recipe, vit = resolved.recipe, resolved.vit
    if recipe.objective == "supervised":
        return supervised_image_flops(vit, 0, *([vit] if recipe.teacher else []))
    masked, shares = recipe.width.apply == "mask", expected_networks(recipe).items()
    return sum(share * mae_image_flops(vit, resolved.mae, *one, masked=masked) for one, share in shares)


def expected_networks(recipe: PretrainRecipe) -> dict[tuple[int, int, int], float]:
    """{(blocks, residual heads, inner heads): how often a step computes it}, over a whole training.

    The distribution that :mod:`sweet.template.networks` draws from.
    """
    width, depth, heads, blocks = recipe.width, recipe.depth, recipe.model.heads, recipe.model.depth
    sides = _draw_probabilities(heads, width.min_heads, width.full_probability)
    middle = _draw_probabilities(heads, width.min_heads, 0.0)
    modes: dict[str, dict[tuple[int, int], float]] = {
        "none": {(heads, heads): 1.0},
        "independent": {(a, b): sides[a] * sides[b] for a, b in product(sides, sides)},
        "shared": {(a, a): share for a, share in sides.items()},
        "sandwich": {(a, a): share + (a == heads) + (a == min(middle)) for a, share in middle.items()},
    }
    depths = {blocks: 1.0}
    if depth.mode != "none":
        depths = _draw_probabilities(blocks, depth.min_blocks, depth.full_probability)
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


def _draw_probabilities(full: int, low: int, full_probability: float) -> dict[int, float]:
    """Full with a probability, otherwise uniform on low..full."""
    values = range(min(low, full), full + 1)
    return {v: (1 - full_probability) / len(values) + full_probability * (v == full) for v in values}


def plan(recipe: PretrainRecipe, gpus: GpuGuess | None = None, images: int | None = None) -> Mapping[str, object]:
    """Everything about a pre-training run that can be known without running it; ``images``: how many its data has.

    ``gpus`` says on what it would run; by default that is stated where it would take one of them some minutes or more.
    """
    resolved = resolve(recipe)
    config, keys, template = resolved.vit, recipe.template, template_cost_of(resolved)
    rebuild = pretraining_flops(0, images=0, steps=1, rebuild=template.rebuild_macs)
    step = rebuild + pretraining_flops(expected_image_flops(resolved), images=recipe.batch_size, steps=1, rebuild=0)
    result: dict[str, object] = {
        "recipe": recipe.name,
        "data": recipe.data.source or "give it with --data",
        "encoder": f"{config.size} {config.family}, width {config.width}",
        "images": f"{size_text(config.img_size)} px, patch {config.patch_size}",
        "constraint": keys.constraint,
        "epochs": recipe.epochs,
        "max_steps": recipe.max_steps,
        "batch_size": recipe.batch_size,
        "step_gflops": round(step / 1e9, 2),
        "writes": [TENSORS["dense" if keys.constraint == "none" else "template"], *RUN_FILES],
    }
    if images is None:  # else it was measured with them
        memory = training_memory(resolved, max(1, recipe.batch_size // recipe.optim.accumulate))
        result["memory_gb"] = round(memory / 1e9, 2)
    if keys.constraint == "tucker":
        result |= {"ranks": list(resolved.ranks), "learn": keys.learn}
    if keys.trained == "kronecker":
        result["tile"] = resolved.tile
    if keys.constraint != "none":
        parameters = template.shared + template.scalers
        result |= {
            "template_params_m": round(parameters / 1e6, 3),
            "share_of_slices": round(parameters / (12 * config.depth * config.width**2), 3),
            "rebuild_share_of_step": round(rebuild / step, 3),
        }
    guess = gpus or GpuGuess()
    guess = guess if images is None else replace(guess, images=images)
    flops, seen = pretraining_cost(resolved, guess.images), resolved.steps(guess.images) * recipe.batch_size
    rows = guess.table(flops, seen)
    if gpus is not None or float(rows[0]["hours"]) >= SHOWN_HOURS:
        of = f"{guess.images:,} images, " if recipe.max_steps is None else ""
        result |= {"gpus_assume": of + guess.text, "gpus": rows}
    result["sizes"] = size_table(config, example_sizes(config), num_classes=1000)
    return result
