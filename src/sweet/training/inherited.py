"""What a recipe takes from the model that it trains."""

from __future__ import annotations

from pathlib import Path

from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig
from sweet.tasks.task import Task
from sweet.template.image_size import size_text


def with_model_data(recipe: FinetuneRecipe, data: DataConfig, model: Path, task: type[Task]) -> FinetuneRecipe:
    """The recipe with the model's own size, mean, std and interpolation wherever it does not set them.

    Raises UserError when it sets another image size than the model takes, or what has no effect on the ``task``.
    """
    given = recipe.data.model_fields_set
    if "img_size" in given and recipe.data.img_size != data.img_size:
        size = size_text(recipe.data.img_size)
        raise UserError(
            f"data.img_size={size}: the model {model} takes {size_text(data.img_size)} px; "
            f"make one with sweet init --img-size {size}"
        )
    if "mean" in given and len(recipe.data.mean) != len(data.mean):
        raise UserError(
            f"data.mean={list(recipe.data.mean)}: {len(recipe.data.mean)} values, the model {model} takes "
            f"{len(data.mean)} channels; make one with sweet init --in-chans {len(recipe.data.mean)}"
        )
    interpolation = recipe.data.interpolation
    if "interpolation" in given and not task.interpolates and interpolation != data.interpolation:
        raise UserError(
            f"data.interpolation={interpolation}: has no effect on --task {task.__name__.lower()}; leave it out"
        )
    inherited = data.model_dump(include={"img_size", "mean", "std", "value_range", "interpolation"} - given)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=inherited)})
