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

from .arms import Checkpoint, Converted, FineTuned, Rotated
from .protocol import Cell, Protocol, Trial, spec_of
from .sources import Sources, finetune_recipe_of
from .starts import unfinished

HEALED = 128  # images of a step of healing
SHAPES = "shapes:"  # stands for any images
BATCH = {"dmae": 128, "distilled": 128}  # by default; of others 256
DISTILLED = 64_000  # images that ``distilled`` sees by default


def resolved(protocol: Protocol, source: str, trial: Trial | None = None) -> ResolvedRecipe:
    """The recipe of a source and what follows from it; no image is read. A checkpoint is seen as ``trial`` sees it."""
    return resolve(Sources(protocol, SHAPES, img_size=trial.img_size if trial else None).recipe(source))


def source_flops(protocol: Protocol, source: str) -> float:
    """Of what is learned for this source alone, not for the one that it is made from."""
    made, recipe = protocol.sources[source], resolved(protocol, source)
    if isinstance(made, Rotated | Checkpoint):
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
    config = resolved(protocol, protocol.source_of(cell.arm, cell.size), cell.trial).vit
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
    arm = protocol.arms[cell.arm]
    method = NAMES[arm.method]
    if not method.trains or unfinished(protocol, cell) is not None:  # it is made of another start
        return 0.0
    source = resolved(protocol, protocol.source_of(cell.arm, cell.size), cell.trial)
    config, mae, learned = source.vit, source.mae, source.recipe
    size = Size.parse(cell.size, config.head_dim)
    target = config.resized(size.depth, size.heads)
    seen = float(arm.switches.get("steps", 0)) * float(arm.switches.get("batch", BATCH.get(arm.method, 256)))
    images = seen or method.images or learned.epochs * protocol.images / STUDENTS
    if arm.method == "dmae":
        return distilling_flops(config, target, mae, images=images)
    if arm.method == "distilled":
        return (seen or DISTILLED) * (3 * target.cost().flops(attention=True) + config.cost().flops(attention=True))
    if arm.method == "sweet_fitted" and arm.switches.get("objective") != "mae":
        return fitting_flops(config, target, mae, images=int(images))
    supervised = learned.objective == "supervised"  # then its source answers beside it
    per_image = supervised_image_flops(target, 0, config) if supervised else mae_image_flops(target, mae)
    return pretraining_flops(per_image, images=int(images), steps=0, rebuild=0)


def plan(protocol: Protocol, table: str, cells: Mapping[Cell, FinetuneRecipe]) -> dict[str, object]:
    """Everything about a table that can be known without running it; ``cells`` with their recipes."""
    needed = list(dict.fromkeys(protocol.source_of(cell.arm, cell.size) for cell in cells))
    chains = {source: Sources(protocol, SHAPES).chain(source) for source in needed}
    own = {
        (protocol.replicate(cell.seed), name)
        for cell in cells
        for name in chains[protocol.source_of(cell.arm, cell.size)]
    }
    budgets = {source: budget_of(protocol, source) for source in needed}
    single = {arm.name for arm in spec_of(protocol, table).arms if arm.of_each_size}
    small = {protocol.source_of(one.arm, one.size) for one in cells if one.arm in single}  # learned at one size
    least = min((flops for name, flops in budgets.items() if name not in small), default=0.0)
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    columns = list(dict.fromkeys(cell.trial.column(cell.size) for cell in cells))
    left_out = {(arm, column.size) for arm in arms for column in columns if not protocol.can(arm, column.size)}
    tuning = sum(cell_flops(protocol, cell, recipe) for cell, recipe in cells.items())
    ways = [(unfinished(protocol, cell) or protocol, cell) for cell in cells]
    making = sum(start_flops(*way) for way in {_start(*way): way for way in ways}.values())
    learning = sum(source_flops(protocol, name) for _, name in own)
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
                "against_the_least": round(budgets[name] / least, 3) if least else 1.0,
            }
            for name in needed
        ],
        "pflops": round((tuning + making + learning) / 1e15, 3),
        "pflops_of": {
            "sources": round(learning / 1e15, 3),
            "starts": round(making / 1e15, 3),
            "fine-tuning": round(tuning / 1e15, 3),
        },
    }


def _start(protocol: Protocol, cell: Cell) -> tuple[object, ...]:
    """What tells one start from another: not the fine-tuning, and the images where nothing was pre-trained."""
    arm = protocol.arms[cell.arm]
    looked_at = cell.trial.data if protocol.from_checkpoint else None
    return arm.method, arm.source, *sorted(arm.switches.items()), cell.size, protocol.replicate(cell.seed), looked_at


def _made(protocol: Protocol, source: str) -> str:
    made = protocol.sources[source]
    if isinstance(made, Checkpoint):
        return "the checkpoint"
    if isinstance(made, list):
        return " ".join(made) or "the recipe as it is"
    return f"{type(made).__name__.lower()} from {made.of}"
