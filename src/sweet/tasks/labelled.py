"""What tasks on whole images with one class each have in common: their sets and their batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from sweet.data import Batches, BatchSource, ImageSet, ImageSource, eval_batches, packed
from sweet.data.packed import labels_of
from sweet.errors import UserError
from sweet.storage.records import DataConfig

from .task import EvalSettings, Task, TrainSettings


class Labelled(Task):
    """A task that takes augmented images (B, C, H, W) and a class index for each (B,), or 0 and 1 of all (B, K)."""

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of labelled images. Raises UserError when there are none."""
        if images.labels is None and images.label_lists is not None and not images.has_boxes:
            odd = ((index, labels) for index, labels in enumerate(images.label_lists) if len(labels) != 1)
            index, labels = next(odd, (0, images.label_lists[0]))
            raise UserError(
                f"--data {images.name}: {images.where(index)} has a list of {len(labels)} labels, and the task needs "
                "one label for each image (--task multilabel takes lists)"
            )
        if images.classes is None or images.labels is None:
            raise UserError(
                f"--data {images.name}: {images.split} has no class labels, and the task needs them (a folder of "
                "images: train/CLASS/IMAGE and val/CLASS/IMAGE)"
            )
        return images.classes

    @staticmethod
    def relabel(images: ImageSource, classes: Sequence[str]) -> bool:
        return images.relabelled(classes)

    def prepare_data(self, images: ImageSource, data_config: DataConfig) -> ImageSet:
        return packed(images, data_config.img_size)

    def batches(self, data: ImageSet, settings: TrainSettings) -> BatchSource:
        keys = settings.recipe.data
        return Batches(
            data,
            batch_size=settings.batch_size,
            seed=settings.recipe.seed,
            augment=keys.augment,
            img_size=keys.img_size,
            mean=keys.mean,
            std=keys.std,
            crop_scale=keys.crop_scale,
            hflip=keys.hflip,
            interpolation=keys.interpolation,
            balanced=settings.recipe.optim.balance == "sampler",
            rank=settings.rank,
            world=settings.world,
            device=settings.device,
            workers=settings.recipe.workers,
            skips=settings.skips,
        )


def targets_of(data: ImageSet) -> Tensor:
    """Labels (N,) of a set that has them, or targets (N, K)."""
    labels = labels_of(data)
    assert labels is not None
    return labels


def images_of(data: ImageSet, settings: EvalSettings) -> Iterable[tuple[Tensor, Any]]:
    """Whole images (b, C, H, W), normalised as the model wants them, with their labels (b,)."""
    config = settings.data_config
    batches = eval_batches(
        data,
        batch_size=settings.batch_size,
        img_size=config.img_size,
        mean=config.mean,
        std=config.std,
        device=settings.device,
        workers=settings.workers,
    )
    return settings.shown(batches, len(data))
