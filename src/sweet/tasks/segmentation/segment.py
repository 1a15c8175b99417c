"""Semantic segmentation: a class for every pixel by UPerNet, mIoU of one confusion matrix over the whole set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from sweet.data import (
    IGNORE,
    BatchSource,
    Finding,
    ImageSet,
    ImageSource,
    Picture,
    class_pixels,
    in_order,
    normalise,
    random_view,
    scaled,
    to_tensor,
    unseen_classes,
)
from sweet.data.decode import KERNELS
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneDataKeys, Share
from sweet.storage.records import DataConfig
from sweet.tasks import task
from sweet.tasks.pictures import file_name, for_a_picture, overlay, palette, save_grid
from sweet.tasks.task import EvalSettings, Metrics, Row, Task, TrainSettings
from sweet.template.image_size import sides

from .upernet import Segmenter, finest, resize

Size = Annotated[int, Field(ge=0)]
SHOWN = 6  # validation images on the contact sheet


class SegmentOptions(task.Options):
    """The decoder, and in what size images pass through it. The defaults are those of the paper's protocol."""

    use = frozenset({"dropout", "short_side", "crop", "window", "stride", "balance"})

    channels: Annotated[int, Field(ge=1)] = 512
    pool_scales: Annotated[str, Field(pattern=r"^[1-9]\d*(,[1-9]\d*)*$")] = "1,2,3,6"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    aux_weight: Annotated[float, Field(ge=0)] = 0.4  # of the auxiliary head's loss; 0: no such head
    aux_channels: Annotated[int, Field(ge=1)] = 256
    # how much finer than the patches the finest map is; 0: 4, but no finer than 2 pixels (patches of 4: 2, below: 1)
    upsample: Literal[0, 1, 2, 4] = 0
    short_side: Size = 0  # pixels to which images are resized before everything else; 0: as they are
    crop: Size = 0  # pixels of the square crops to train on; 0: the model's img_size, square or not
    window: Size = 0  # pixels of the square windows to test in, where an image is larger; 0: as the crop
    stride: Size = 0  # pixels from one window to the next; 0: two thirds of the window
    balance: Share = 0.0  # weigh rare classes more in the loss: median frequency (arXiv 1411.4734) to this power


class Segment(Task):
    """Loss and metrics of a :class:`Segmenter`; masks hold the index of a class, or ``IGNORE``."""

    Options = SegmentOptions
    timm_options: ClassVar[Mapping[str, Any]] = {"dynamic_img_size": True, "dynamic_img_pad": True}
    without_effect: ClassVar[tuple[str, ...]] = ("mixup", "cutmix", "data.crop_scale", "data.scale_jitter")
    reads_all: ClassVar[bool] = True
    head: SegmentOptions
    weights: Tensor | None = None  # (K,) of the classes in the loss

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of pixels. Raises UserError when there are no masks."""
        if images.mask_classes is None:
            raise UserError(f"--data {images.name}: has no masks, and segmentation needs them (masks:PATH)")
        return images.mask_classes

    def adapt(self, train: ImageSource, val: ImageSource) -> None:
        """Raises UserError for a stride that would leave gaps between windows."""
        assert self.recipe is not None
        largest = max(self.window(DataConfig.of_recipe(self.recipe.data, self.classes)))
        if self.head.stride > largest:
            raise UserError(f"head.stride={self.head.stride}: more than the window of {largest} pixels")

    def network(self, vit: Any) -> nn.Module:
        upsample = self.head.upsample or finest(min(vit.patch_embed.patch_size))
        self.head = self.head.model_copy(update={"upsample": upsample})
        return Segmenter(
            vit,
            len(self.classes),
            channels=self.head.channels,
            pool_scales=[int(scale) for scale in self.head.pool_scales.split(",")],
            dropout=self.head.dropout,
            aux_channels=self.head.aux_channels if self.head.aux_weight else 0,
            upsample=upsample,
        )

    def prepare_data(self, images: ImageSource, data_config: DataConfig) -> ImageSet:
        """The set as it is, once all its masks have been read: a wrong one ends a run before it begins."""
        class_pixels(images)
        return images

    def findings(self, images: ImageSource) -> list[Finding]:
        """Classes that no mask shows. Reads all masks; raises UserError for black and white ones, 0 and 255."""
        return unseen_classes(images, class_pixels(images))

    def batches(self, data: ImageSet, settings: TrainSettings) -> BatchSource:
        """Inputs: images (B, C, H, W), normalised; targets: masks (B, H, W) uint8."""
        assert isinstance(data, ImageSource)
        if self.head.balance:
            self.weights = (median_frequency(class_pixels(data)) ** self.head.balance).to(settings.device)
        return settings.samples(len(data), partial(self._view, data, settings.recipe.data), stacked)

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
        targets = targets.long()

        def entropy(logits: Tensor) -> Tensor:
            total = F.cross_entropy(
                logits, targets, self.weights, ignore_index=IGNORE, reduction="sum", label_smoothing=self.smoothing
            )
            return total / count.clamp(min=1)

        known = targets[targets != IGNORE]
        count = known.new_tensor(len(known)) if self.weights is None else self.weights[known].sum()
        loss = entropy(logits)
        return loss if auxiliary is None else loss + self.head.aux_weight * entropy(auxiliary)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, data: ImageSet, settings: EvalSettings) -> Metrics:
        """:func:`metrics_of` all pixels that have a class, at the masks' own size; ``batch_size`` counts windows."""
        assert isinstance(data, ImageSource)
        model.eval()
        count = len(self.classes)
        table = torch.zeros(count * count, dtype=torch.int64, device=settings.device)
        load = partial(self._whole_sample, data, settings.data_config)
        batches = in_order(
            len(data), load, itemgetter(0), batch_size=1, device=settings.device, workers=settings.workers
        )
        for pixels, mask in settings.shown(batches, len(data), 1):
            predicted = self.logits(model, pixels, mask.shape, settings).argmax(0)
            known = mask != IGNORE
            table += torch.bincount(mask[known].long() * count + predicted[known], minlength=count * count)
        if not table.any():
            raise UserError(f"--data {data.name}: no pixel of {data.split} has a class")
        return metrics_of(table.view(count, count).cpu(), self.classes, len(data))

    def _whole_sample(self, data: ImageSource, data_config: DataConfig, index: int) -> tuple[Tensor, Tensor]:
        return self._whole(data.decode(index), data_config), torch.from_numpy(data.mask(index))

    def _whole(self, image: Picture, data_config: DataConfig) -> Tensor:
        """(C, H, W), normalised."""
        size = scaled(image.size, self.head.short_side)
        if size != image.size:
            image = image.resize(size, KERNELS[data_config.interpolation])
        return normalise(to_tensor(image), data_config.mean, data_config.std)

    def window(self, data_config: DataConfig) -> tuple[int, int]:
        """Height and width in pixels of the windows in which a large image is looked at."""
        return sides(self.head.window or self.head.crop or data_config.img_size)

    def stride(self, data_config: DataConfig) -> tuple[int, int]:
        """Pixels from one window to the next, down and across, so that none lies between two."""
        height, width = (min(self.head.stride or max(1, side * 2 // 3), side) for side in self.window(data_config))
        return height, width

    def logits(self, model: nn.Module, pixels: Tensor, size: tuple[int, ...], settings: EvalSettings) -> Tensor:
        """(K, *size) of one image (C, H, W): whole where it fits into a window, else the mean over windows."""
        rows, columns = self.window(settings.data_config)
        down, across = self.stride(settings.data_config)
        height, width = pixels.shape[1:]
        places = [(top, left) for top in starts(height, rows, down) for left in starts(width, columns, across)]
        total = pixels.new_zeros(len(self.classes), height, width)
        hits = pixels.new_zeros(height, width)
        for first in range(0, len(places), settings.batch_size):
            windows = [
                (..., slice(top, top + rows), slice(left, left + columns))
                for top, left in places[first : first + settings.batch_size]
            ]
            for place, logits in zip(windows, model(torch.stack([pixels[place] for place in windows])), strict=True):
                total[place] += logits
                hits[place] += 1
        return resize((total / hits)[None], size)[0]

    @torch.no_grad()
    def _classes_in(self, model: nn.Module, image: Picture, settings: EvalSettings) -> NDArray[np.uint8]:
        """(H, W) uint8: the most likely class of each pixel."""
        pixels = self._whole(image, settings.data_config).to(settings.device)
        logits = self.logits(model.eval(), pixels, (image.height, image.width), settings)
        return logits.argmax(0).to(torch.uint8).cpu().numpy()

    def predict(
        self, model: nn.Module, images: ImageSource, settings: EvalSettings, *, top: int, out: Path | None
    ) -> list[Row]:
        """The ``top`` largest classes of each image with their share of its pixels.

        Raises UserError for a threshold: each pixel has the class that is likeliest.
        """
        if settings.threshold is not None:
            raise UserError(f"--threshold {settings.threshold:g}: has no meaning for a segmenter")
        rows: list[Row] = []
        colours = palette(len(self.classes))
        for index in settings.shown(range(len(images)), len(images), 1):
            image = images.decode(index)
            predicted = self._classes_in(model, image, settings)
            shares = np.bincount(predicted.ravel(), minlength=len(self.classes)) / predicted.size
            largest = [label for label in np.argsort(-shares, kind="stable").tolist() if shares[label]]
            rows += [
                {"image": images.where(index), "class": self.classes[label], "share": round(float(shares[label]), 5)}
                for label in largest[:top]
            ]
            if out is not None:
                shown, (classes,) = for_a_picture(image, [predicted])
                pair = [np.asarray(shown), overlay(shown, classes, colours)]
                legend = [(self.classes[label], colours[label]) for label in largest]
                save_grid(out / file_name(f"{index:03d}", images.where(index)), [pair], ["image", "predicted"], legend)
        return rows

    def pictures(self, model: nn.Module, data: ImageSet, settings: EvalSettings, metrics: Metrics, out: Path) -> None:
        """``segments.png``: validation images, evenly picked, beside their masks and what is predicted for them."""
        assert isinstance(data, ImageSource)
        colours, rows, void = palette(len(self.classes)), [], False
        picked = sorted({round(place) for place in np.linspace(0, len(data) - 1, SHOWN)})
        for index in settings.shown(picked, len(picked), 1):
            image = data.decode(index)
            maps = data.mask(index), self._classes_in(model, image, settings)
            void |= bool((maps[0] == IGNORE).any())
            shown, smaller = for_a_picture(image, maps)
            rows.append([np.asarray(shown), *(overlay(shown, classes, colours, 1) for classes in smaller)])
        legend = list(zip(self.classes, colours, strict=True))
        if void:
            legend.insert(0, ("void, not judged", np.zeros(3, np.uint8)))
        titles = ["image", "truth", f"predicted (mIoU {metrics.scores['miou']:.1f} %)"]
        half = len(rows) // 2
        if len(rows) == 2 * half:  # two scenes side by side
            titles *= 2
            rows = [left + right for left, right in zip(rows[:half], rows[half:], strict=True)]
        save_grid(out / "segments.png", rows, titles, legend)


def stacked(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and masks (B, H, W), as large as the largest; zero and ``IGNORE`` beyond the others."""
    rows, columns = (max(mask.shape[axis] for _, mask in samples) for axis in (0, 1))

    def filled(values: Tensor, value: int) -> Tensor:
        return F.pad(values, (0, columns - values.shape[-1], 0, rows - values.shape[-2]), value=value)

    return (
        torch.stack([filled(image, 0) for image, _ in samples]),
        torch.stack([filled(mask, IGNORE) for _, mask in samples]),
    )


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin, so that they cover a line; the last one ends with it."""
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def metrics_of(table: Tensor, classes: list[str], images: int) -> Metrics:
    """Metrics in percent of a confusion matrix of pixels (K, K): a row for a true class, a column for a predicted one.

    ``miou`` is the mean of intersection over union, without classes that neither are nor were predicted; ``macc`` the
    mean share of a class's pixels that were found, without classes that never occur; ``pixel_acc`` the share of all
    pixels; ``per_class`` the intersection over union of each. As mmsegmentation's mIoU, mAcc and aAcc.
    """
    table = table.double()
    hits, true, predicted = table.diagonal(), table.sum(1), table.sum(0)
    union = true + predicted - hits
    iou, recall = 100 * hits / union, 100 * hits / true
    scores = {
        "miou": round(float(iou[union > 0].mean()), 3),
        "macc": round(float(recall[true > 0].mean()), 3),
        "pixel_acc": round(float(100 * hits.sum() / table.sum()), 3),
    }
    per_class = {name: round(float(iou[i]), 2) for i, name in enumerate(classes) if union[i] > 0}
    return Metrics(scores, images, {"per_class": per_class})


def median_frequency(pixels: Tensor) -> Tensor:
    """Weights (K,) of classes from their pixels in each image (N, K): median of all frequencies / own frequency.

    The frequency of a class is its share of the pixels in those images that have it (arXiv 1411.4734, section 6.3.2).
    A class that never occurs has weight 1.
    """
    shown = pixels > 0
    frequency = pixels.sum(0) / (shown * pixels.sum(1, keepdim=True)).sum(0)
    known = shown.any(0)
    return torch.where(known, frequency[known].median() / frequency, 1.0).float()


TASK = Segment
