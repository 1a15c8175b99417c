"""What a table will take, by closed formulas: for the time that is left, and for a plan. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sweet.costs.flops import (
    STUDENTS,
    distilling_flops,
    fitting_flops,
    mae_image_flops,
    pretraining_flops,
    supervised_image_flops,
)
from sweet.costs.plan import pretraining_cost
from sweet.initialise.registry import NAMES
from sweet.models.config import ViTConfig
from sweet.recipes.resolved import ResolvedRecipe, resolve
from sweet.recipes.schema import FinetuneRecipe
from sweet.template.sizes import Size

from .arms import Converted, FineTuned, Rotated
from .protocol import Cell, Protocol
from .sources import Sources, finetune_recipe_of

HEALED = 128  # images of a step of healing
SHAPES = "shapes:"  # stands for any images


def resolved(protocol: Protocol, source: str) -> ResolvedRecipe:
    """The recipe of a source and what follows from it; no image is read."""
    return resolve(Sources(protocol, SHAPES).recipe(source))


def source_flops(protocol: Protocol, source: str) -> float:
    """Of what is learned for this source alone, not for the one that it is made from."""
    made, recipe = protocol.sources[source], resolved(protocol, source)
    if isinstance(made, Rotated):
        return 0.0
    if isinstance(made, FineTuned):
        return _tuning_flops(finetune_recipe_of(protocol), protocol.images, recipe.vit)
    if isinstance(made, Converted):
        images = made.heal * HEALED
        return pretraining_flops(mae_image_flops(recipe.vit, recipe.mae), images=images, steps=0, rebuild=0)
    return pretraining_cost(recipe, protocol.images)


def budget_of(protocol: Protocol, source: str) -> float:
    """FLOPs of a source and all that it is made from."""
    return sum(source_flops(protocol, name) for name in Sources(protocol, SHAPES).chain(source))


def cell_flops(protocol: Protocol, cell: Cell, recipe: FinetuneRecipe) -> float:
    """Of fine-tuning a cell."""
    config = resolved(protocol, protocol.source_of(cell.arm)).vit
    size, trial = Size.parse(cell.size, config.head_dim), cell.trial
    config = replace(
        config.resized(size.depth, size.heads),
        img_size=trial.img_size or config.img_size,
        patch_size=trial.patch_size or config.patch_size,
    )
    return _tuning_flops(recipe, trial.images or protocol.images, config)


def _tuning_flops(recipe: FinetuneRecipe, available: int, config: ViTConfig) -> float:
    """Of a fine-tuning on the images that are available or fewer, without tests and a task's own head."""
    images = recipe.epochs * (recipe.data.labels or available)
    if recipe.max_steps:
        images = min(images, recipe.max_steps * recipe.batch_size)
    return 3 * images * config.cost().flops(attention=True)


def start_flops(protocol: Protocol, cell: Cell) -> float:
    """Of making initial weights by a method that trains."""
    name = protocol.arms[cell.arm].method
    method = NAMES[name]
    if not method.trains:
        return 0.0
    source = resolved(protocol, protocol.source_of(cell.arm))
    config, mae, learned = source.vit, source.mae, source.recipe
    size = Size.parse(cell.size, config.head_dim)
    target = config.resized(size.depth, size.heads)
    if method.images is None:
        return distilling_flops(config, target, mae, images=learned.epochs * protocol.images / STUDENTS)
    if name == "sweet_fitted":
        return fitting_flops(config, target, mae, images=method.images)
    supervised = learned.objective == "supervised"  # then its source answers beside it
    per_image = supervised_image_flops(target, 0, config) if supervised else mae_image_flops(target, mae)
    return pretraining_flops(per_image, images=method.images, steps=0, rebuild=0)


def plan(protocol: Protocol, table: str, cells: Mapping[Cell, FinetuneRecipe]) -> dict[str, object]:
    """Everything about a table that can be known without running it; ``cells`` with their recipes."""
    needed = list(dict.fromkeys(protocol.source_of(cell.arm) for cell in cells))
    own = dict.fromkeys(name for source in needed for name in Sources(protocol, SHAPES).chain(source))
    budgets = {source: budget_of(protocol, source) for source in needed}
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    columns = list(dict.fromkeys(cell.trial.column(cell.size) for cell in cells))
    left_out = {(arm, column.size) for arm in arms for column in columns if not protocol.can(arm, column.size)}
    tuning = sum(cell_flops(protocol, cell, recipe) + start_flops(protocol, cell) for cell, recipe in cells.items())
    learning = sum(source_flops(protocol, name) for name in own)
    return {
        "table": table,
        "protocol": protocol.name,
        "recipe": protocol.pretrain,
        "cells": len(cells),
        "arms": arms,
        "columns": [column.name for column in columns],
        "left_out": [f"{arm} {size}" for arm, size in sorted(left_out)],
        "sources": [
            {
                "source": name,
                "made": _made(protocol, name),
                "pflops": round(budgets[name] / 1e15, 4),
                "against_the_least": round(budgets[name] / min(budgets.values()), 3),
            }
            for name in needed
        ],
        "pflops": round((tuning + learning) / 1e15, 3),
    }


def _made(protocol: Protocol, source: str) -> str:
    made = protocol.sources[source]
    if isinstance(made, list):
        return " ".join(made) or "the recipe as it is"
    return f"{type(made).__name__.lower()} from {made.of}"
