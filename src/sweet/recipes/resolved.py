"""What follows from a pre-training recipe: shapes, ranks, tiles, steps; computed once. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sweet.models.config import MaeConfig, ViTConfig
from sweet.template.image_size import ImageSize, sides
from sweet.template.sizes import Ranks, default_ranks, default_tile, matched_ranks

from .schema import ModelKeys, PretrainRecipe, TrainKeys


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe and what follows from it.

    ``ranks`` (r1, r2, r3) are those of the core that is written, ``learned_ranks`` those of the core that is trained;
    of Kronecker tiles, which have none, those of a Tucker core of as many numbers. ``tile`` is the width of a tile in
    channels.
    """

    recipe: PretrainRecipe
    vit: ViTConfig
    mae: MaeConfig
    ranks: Ranks
    learned_ranks: Ranks
    tile: int

    def steps(self, images: int) -> int:
        """Optimiser steps on a set of ``images``, of which ``data.limit`` may use fewer."""
        recipe = self.recipe
        return total_steps(recipe, max(1, min(images, recipe.data.limit or images) // recipe.batch_size))


def resolve(recipe: PretrainRecipe) -> ResolvedRecipe:
    """The shapes, ranks and tile of a recipe."""
    template, model = recipe.template, recipe.model
    full = (12 * model.depth, model.width, model.width)
    ranks = full if template.factored_at_end else template.ranks or default_ranks(model.depth, model.width)
    learned = ranks
    if template.trained == "kronecker":
        given = None if template.factored_at_end else template.ranks
        learned = given or matched_ranks(model.depth, model.width)
    return ResolvedRecipe(
        recipe=recipe,
        vit=vit_config(model, recipe.data.img_size),
        mae=MaeConfig(**recipe.mae.model_dump()),
        ranks=ranks,
        learned_ranks=learned,
        tile=template.tile or default_tile(model.heads, model.head_dim),
    )


def vit_config(model: ModelKeys, img_size: ImageSize) -> ViTConfig:
    """The encoder of a recipe; rotary base 100 for grids up to 16 x 16, 10000 above."""
    longest = max(sides(img_size)) // model.patch_size
    return ViTConfig(
        depth=model.depth,
        heads=model.heads,
        head_dim=model.head_dim,
        img_size=img_size,
        patch_size=model.patch_size,
        in_chans=model.in_chans,
        family=model.family,
        rope_theta=model.rope_theta or (100.0 if longest <= 16 else 10000.0),
    )


def total_steps(keys: TrainKeys, steps_per_epoch: int) -> int:
    """Optimiser steps of a run, at least one; ``max_steps`` shortens it."""
    steps = max(1, round(keys.epochs * steps_per_epoch))
    return min(steps, keys.max_steps) if keys.max_steps else steps
