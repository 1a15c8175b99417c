"""Semantic segmentation: a class for every pixel by UPerNet, mIoU of one confusion matrix over the whole set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from sweet.data import ImageSource, Packed, Samples, in_order, normalise
from sweet.data.images import IGNORE
from sweet.data.masks import class_pixels
from sweet.data.packed import to_tensor
from sweet.data.views import KERNELS, random_view, scaled
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneDataKeys, FinetuneRecipe, Share
from sweet.storage.records import DataConfig
from sweet.tasks import task
from sweet.tasks.pictures import overlay, palette, save_grid
from sweet.tasks.task import Task, TrainBatches

from .upernet import Segmenter, resize

Size = Annotated[int, Field(ge=0)]
SHOWN = 6  # validation images on the contact sheet


class SegmentOptions(task.Options):
    """The decoder, and in what size images pass through it. The defaults are those of the paper's protocol."""

    channels: Annotated[int, Field(ge=1)] = 512
    pool_scales: Annotated[str, Field(pattern=r"^[1-9]\d*(,[1-9]\d*)*$")] = "1,2,3,6"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    aux_weight: Annotated[float, Field(ge=0)] = 0.4  # of the auxiliary head's loss; 0: no such head
    aux_channels: Annotated[int, Field(ge=1)] = 256
    short_side: Size = 0  # pixels to which images are resized before everything else; 0: as they are
    crop: Size = 0  # pixels of the square crops to train on; 0: the model's img_size
    window: Size = 0  # pixels of the windows to test in, where an image is larger; 0: as the crop
    stride: Size = 0  # pixels from one window to the next; 0: two thirds of the window
    balance: Share = 0.0  # weigh rare classes more in the loss: median frequency (arXiv 1411.4734) to this power

    @field_validator("stride")
    @classmethod
    def _leaves_no_gap(cls, stride: int, info: ValidationInfo) -> int:
        window = info.data.get("window") or info.data.get("crop")
        if window and stride > window:
            raise PydanticCustomError("stride", "more than the window of {window} pixels", {"window": window})
        return stride


class Segment(Task):
    """Loss and metrics of a :class:`Segmenter`; masks hold the index of a class, or ``IGNORE``."""

    Options = SegmentOptions
    timm_options: ClassVar[Mapping[str, Any]] = {"dynamic_img_size": True, "dynamic_img_pad": True}
    head: SegmentOptions

    def __init__(
        self, classes: list[str], recipe: FinetuneRecipe | None = None, head: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(classes, recipe, head)
        self.weights: Tensor | None = None
        for key in ("mixup", "cutmix"):
            if recipe and (value := getattr(recipe, key)):
                raise UserError(f"{key}={value:g}: is for classification only")

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of pixels. Raises UserError when there are no masks."""
        if images.mask_classes is None:
            raise UserError(f"--data {images.name}: has no masks, and segmentation needs them (masks:PATH)")
        return images.mask_classes

    def network(self, vit: Any) -> nn.Module:
        return Segmenter(
            vit,
            len(self.classes),
            channels=self.head.channels,
            pool_scales=[int(scale) for scale in self.head.pool_scales.split(",")],
            dropout=self.head.dropout,
            aux_channels=self.head.aux_channels if self.head.aux_weight else 0,
        )

    def prepare_data(self, images: ImageSource, data_config: DataConfig) -> ImageSource | Packed:
        """The set as it is, once all its masks have been looked at: a wrong one ends a run before it begins."""
        class_pixels(images)
        return images

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
        assert isinstance(data, ImageSource)
        if self.head.balance:
            self.weights = (median_frequency(class_pixels(data)) ** self.head.balance).to(device)
        return Samples(
            len(data),
            partial(self._view, data, recipe.data),
            together,
            batch_size=batch_size,
            seed=recipe.seed,
            rank=rank,
            world=world,
            device=device,
            workers=recipe.workers,
        )

    def _view(
        self, data: ImageSource, keys: FinetuneDataKeys, index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return random_view(
            data.decode(index),
            data.mask(index),
            self.head.crop or keys.img_size,
            short_side=self.head.short_side,
            augment=keys.augment,
            hflip=keys.hflip,
            mean=keys.mean,
            std=keys.std,
            interpolation=keys.interpolation,
            generator=generator,
        )

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        """Cross-entropy, averaged over the pixels that have a class, and a share of the auxiliary head's."""
        logits, auxiliary = model(inputs)
        targets, smoothing = targets.long(), self.recipe.label_smoothing if self.recipe else 0.0

        def entropy(logits: Tensor) -> Tensor:
            total = F.cross_entropy(
                logits, targets, self.weights, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing
            )
            return total / count.clamp(min=1)

        known = targets[targets != IGNORE]
        count = known.new_tensor(len(known)) if self.weights is None else self.weights[known].sum()
        loss = entropy(logits)
        return loss if auxiliary is None else loss + self.head.aux_weight * entropy(auxiliary)

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        *,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> dict[str, Any]:
        """:func:`figures` of all pixels that have a class, at the masks' own size; ``images`` were measured."""
        assert isinstance(data, ImageSource)
        model.eval()
        count = len(self.classes)
        table = torch.zeros(count * count, dtype=torch.int64, device=device)
        for pixels, mask in in_order(
            len(data),
            partial(self._whole_of, data, data_config),
            itemgetter(0),
            batch_size=1,
            device=device,
            workers=workers,
        ):
            seen = self._logits(model, pixels, mask.shape, data_config, batch_size).argmax(0)
            known = mask != IGNORE
            table += torch.bincount(mask[known].long() * count + seen[known], minlength=count * count)
        if not table.any():
            raise UserError(f"--data {data.name}: no pixel of {data.split} has a class")
        return figures(table.view(count, count).cpu(), self.classes) | {"images": len(data)}

    def _whole_of(self, data: ImageSource, data_config: DataConfig, index: int) -> tuple[Tensor, Tensor]:
        return self._whole(data.decode(index), data_config), torch.from_numpy(data.mask(index))

    def _whole(self, image: Image.Image, data_config: DataConfig) -> Tensor:
        """(C, H, W), normalised."""
        size = scaled(image.size, self.head.short_side)
        if size != image.size:
            image = image.resize(size, KERNELS[data_config.interpolation])
        return normalise(to_tensor(image), data_config.mean, data_config.std)

    def _logits(
        self, model: nn.Module, pixels: Tensor, size: tuple[int, ...], data_config: DataConfig, at_a_time: int
    ) -> Tensor:
        """(K, *size) of one image (C, H, W): whole where it fits into a window, else the mean over windows."""
        window = self.head.window or self.head.crop or data_config.img_size
        stride = self.head.stride or max(1, window * 2 // 3)
        height, width = pixels.shape[1:]
        places = [(top, left) for top in starts(height, window, stride) for left in starts(width, window, stride)]
        total = pixels.new_zeros(len(self.classes), height, width)
        hits = pixels.new_zeros(height, width)
        for first in range(0, len(places), at_a_time):
            part = [
                (..., slice(top, top + window), slice(left, left + window))
                for top, left in places[first : first + at_a_time]
            ]
            for place, logits in zip(part, model(torch.stack([pixels[place] for place in part])), strict=True):
                total[place] += logits
                hits[place] += 1
        return resize((total / hits)[None], size)[0]

    @torch.no_grad()
    def _classes_in(
        self, model: nn.Module, image: Image.Image, data_config: DataConfig, device: torch.device
    ) -> NDArray[np.uint8]:
        """(H, W) uint8: the most likely class of each pixel."""
        pixels = self._whole(image, data_config).to(device)
        logits = self._logits(model.eval(), pixels, (image.height, image.width), data_config, 64)
        return logits.argmax(0).to(torch.uint8).cpu().numpy()

    def predict(
        self,
        model: nn.Module,
        images: ImageSource,
        data_config: DataConfig,
        *,
        top: int,
        device: torch.device,
        out: Path | None,
    ) -> list[dict[str, Any]]:
        """The ``top`` largest classes of each image with their share of its pixels."""
        rows, colours = [], palette(len(self.classes))
        for index in range(len(images)):
            image = images.decode(index)
            seen = self._classes_in(model, image, data_config, device)
            shares = np.bincount(seen.ravel(), minlength=len(self.classes)) / seen.size
            largest = [label for label in np.argsort(-shares, kind="stable").tolist() if shares[label]]
            rows += [
                {"image": images.where(index), "class": self.classes[label], "share": round(float(shares[label]), 5)}
                for label in largest[:top]
            ]
            if out is not None:
                name = f"{index:03d}-{Path(images.where(index)).stem}.png"
                pair = [np.asarray(image), overlay(image, seen, colours)]
                save_grid(out / name, [pair], ["image", "seen"], [(self.classes[i], colours[i]) for i in largest])
        return rows

    def pictures(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        metrics: Mapping[str, Any],
        out: Path,
        device: torch.device,
    ) -> None:
        """``segments.png``: validation images, evenly picked, beside their masks and what is seen in them."""
        assert isinstance(data, ImageSource)
        colours, rows = palette(len(self.classes)), []
        for index in sorted({round(place) for place in np.linspace(0, len(data) - 1, SHOWN)}):
            image = data.decode(index)
            maps = data.mask(index), self._classes_in(model, image, data_config, device)
            rows.append([np.asarray(image), *(overlay(image, classes, colours, 0.8) for classes in maps)])
        legend = list(zip(self.classes, colours, strict=True))
        save_grid(out / "segments.png", rows, ["image", "truth", f"seen (mIoU {metrics['miou']:.1f} %)"], legend)


def together(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) and masks (B, S, S)."""
    images, masks = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(masks)


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin, so that they cover a line; the last one ends with it."""
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def figures(table: Tensor, classes: list[str]) -> dict[str, Any]:
    """Metrics in percent of a confusion matrix of pixels: a row for each true class, a column for each seen one.

    ``miou`` is the mean of intersection over union, without classes that neither are nor were seen; ``macc`` the mean
    share of a class's pixels that were found, without classes that never are; ``pixel_acc`` the share of all pixels;
    ``per_class`` the intersection over union of each. As mmsegmentation's mIoU, mAcc and aAcc.
    """
    table = table.double()
    hits, true, seen = table.diagonal(), table.sum(1), table.sum(0)
    union = true + seen - hits
    iou, recall = 100 * hits / union, 100 * hits / true
    return {
        "miou": round(float(iou[union > 0].mean()), 3),
        "macc": round(float(recall[true > 0].mean()), 3),
        "pixel_acc": round(float(100 * hits.sum() / table.sum()), 3),
        "per_class": {name: round(float(iou[i]), 2) for i, name in enumerate(classes) if union[i] > 0},
    }


def median_frequency(pixels: Tensor) -> Tensor:
    """Weights (K,) of classes from their pixels in each image (N, K): median of all frequencies / own frequency.

    The frequency of a class is its share of the pixels in those images that show it (arXiv 1411.4734, section 6.3.2).
    A class that never occurs has weight 1.
    """
    shown = pixels > 0
    frequency = pixels.sum(0) / (shown * pixels.sum(1, keepdim=True)).sum(0)
    known = shown.any(0)
    return torch.where(known, frequency[known].median() / frequency, 1.0).float()


TASK = Segment
