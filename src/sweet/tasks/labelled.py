"""What tasks on whole images with one class each have in common: their sets and their batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sweet.data import Batches, ImageSource, Packed, eval_batches, packed
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig

from .task import Task, TrainBatches


class Labelled(Task):
    """A task that takes augmented images and a class index for each."""

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of labelled images. Raises UserError when there are none."""
        if images.classes is None or images.labels is None:
            raise UserError(f"--data {images.name}: has no class labels, and the task needs them")
        return images.classes

    def prepare_data(self, images: ImageSource, data_config: DataConfig) -> ImageSource | Packed:
        return packed(images, data_config.img_size)

    def batches(
        self,
        data: ImageSource | Packed,
        recipe: FinetuneRecipe,
        *,
        batch_size: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> TrainBatches:
        keys = recipe.data
        return Batches(
            data,
            batch_size=batch_size,
            seed=recipe.seed,
            augment=keys.augment,
            img_size=keys.img_size,
            mean=keys.mean,
            std=keys.std,
            crop_scale=keys.crop_scale,
            hflip=keys.hflip,
            interpolation=keys.interpolation,
            rank=rank,
            world=world,
            device=device,
            workers=recipe.workers,
        )


def images_of(
    data: ImageSource | Packed, data_config: DataConfig, batch_size: int, device: torch.device | str, workers: int
) -> Iterable[tuple[Tensor, Any]]:
    """Whole images, normalised as the model wants them, with their labels."""
    return eval_batches(
        data,
        batch_size=batch_size,
        img_size=data_config.img_size,
        mean=data_config.mean,
        std=data_config.std,
        device=device,
        workers=workers,
    )
