"""What a table will take, by closed formulas: for the time that is left, and for a plan. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

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
from sweet.models.config import MaeConfig, ViTConfig
from sweet.recipes.resolved import resolve, vit_config
from sweet.recipes.schema import FinetuneRecipe
from sweet.template.sizes import Size

from .arms import Converted, FineTuned, Rotated
from .protocols import Cell, Protocol
from .sources import before, chain, source_recipe

HEALED = 128  # images of a step of healing


def source_flops(told: Protocol, source: str) -> float:
    """Of what is learned for this source alone, not for the one that it is made from."""
    made = told.sources[source]
    recipe = source_recipe(told, source, "shapes:")
    if isinstance(made, Rotated):
        return 0.0
    if isinstance(made, FineTuned):
        config = vit_config(recipe.model, recipe.data.img_size)
        return _tuning_flops(FinetuneRecipe.model_validate(told.finetune), told.images, config)
    if isinstance(made, Converted):
        config, mae = vit_config(recipe.model, recipe.data.img_size), MaeConfig(**recipe.mae.model_dump())
        return pretraining_flops(mae_image_flops(config, mae), images=made.heal * HEALED, steps=0, rebuild=0)
    return pretraining_cost(resolve(recipe), told.images)


def budget_of(told: Protocol, source: str) -> float:
    """Of a source and all that it is made from."""
    return sum(source_flops(told, name) for name in chain(told, source))


def cell_flops(told: Protocol, cell: Cell, recipe: FinetuneRecipe) -> float:
    """Of fine-tuning a start."""
    learned = source_recipe(told, told.source_of(cell.arm), "shapes:")
    config = vit_config(learned.model, learned.data.img_size)
    size, trial = Size.parse(cell.size, config.head_dim), cell.trial
    config = replace(
        config.resized(size.depth, size.heads),
        img_size=trial.img_size or config.img_size,
        patch_size=trial.patch_size or config.patch_size,
    )
    return _tuning_flops(recipe, trial.images or told.images, config)


def _tuning_flops(recipe: FinetuneRecipe, available: int, config: ViTConfig) -> float:
    """Of a fine-tuning on the images that are available or fewer, without tests and a task's own head."""
    images = recipe.epochs * (recipe.data.labels or available)
    if recipe.max_steps:
        images = min(images, recipe.max_steps * recipe.batch_size)
    return 3 * images * config.cost().flops(attention=True)


def start_flops(told: Protocol, cell: Cell) -> float:
    """Of making a start that trains."""
    method = NAMES[told.arms[cell.arm].method]
    if not method.trains:
        return 0.0
    learned = source_recipe(told, told.source_of(cell.arm), "shapes:")
    config, mae = vit_config(learned.model, learned.data.img_size), MaeConfig(**learned.mae.model_dump())
    size = Size.parse(cell.size, config.head_dim)
    target = config.resized(size.depth, size.heads)
    if method.images is None:
        return distilling_flops(config, target, mae, images=learned.epochs * told.images / STUDENTS)
    if told.arms[cell.arm].method == "sweet_fitted":
        return fitting_flops(config, target, mae, images=method.images)
    supervised = learned.objective == "supervised"  # then its source answers beside it
    per_image = supervised_image_flops(target, 0, config) if supervised else mae_image_flops(target, mae)
    return pretraining_flops(per_image, images=method.images, steps=0, rebuild=0)


def plan(told: Protocol, table: str, cells: Iterable[Cell], recipes: dict[Cell, FinetuneRecipe]) -> dict[str, Any]:
    """Everything about a table that can be known without running it."""
    cells = list(cells)
    needed = list(dict.fromkeys(told.source_of(cell.arm) for cell in cells))
    own = dict.fromkeys(name for source in needed for name in chain(told, source))
    budgets = {source: budget_of(told, source) for source in needed}
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    columns = list(dict.fromkeys((cell.trial, cell.size) for cell in cells))
    out_of = {(arm, size) for arm in arms for _, size in columns if not told.can(arm, size)}
    fine = sum(cell_flops(told, cell, recipes[cell]) + start_flops(told, cell) for cell in cells)
    learning = sum(source_flops(told, name) for name in own)
    return {
        "table": table,
        "protocol": told.name,
        "recipe": told.pretrain,
        "cells": len(cells),
        "starts": arms,
        "columns": [trial.column(size) for trial, size in columns],
        "left_out": [f"{arm} {size}" for arm, size in sorted(out_of)],
        "sources": [
            {
                "source": name,
                "made": _made(told, name),
                "pflops": round(budgets[name] / 1e15, 4),
                "against_the_least": round(budgets[name] / min(budgets.values()), 3),
            }
            for name in needed
        ],
        "pflops": round((fine + learning) / 1e15, 3),
    }


def _made(told: Protocol, source: str) -> str:
    made = told.sources[source]
    if isinstance(made, list):
        return " ".join(made) or "the recipe as it is"
    return f"{type(made).__name__.lower()} from {before(told, source)}"
