"""Detection: Faster R-CNN, or Mask R-CNN where every object has a mask; average precision by the COCO protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from sweet.data import ImageSource, Packed, Samples, in_order, jittered, normalise
from sweet.data.packed import to_tensor
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig
from sweet.tasks.pictures import drawn, save_png, sheet_of_pairs
from sweet.tasks.task import Options, Task, TrainBatches

from .average_precision import AveragePrecision
from .detector import Detector

AT_ONCE = 8  # images of an evaluation in one forward pass
SHOWN = 0.5  # objects below this score are not drawn
SHEET_IMAGES, TILE = 8, 320


class DetectOptions(Options):
    """The defaults are ViTDet's; see :class:`sweet.tasks.detection.detector.Detector`."""

    masks: bool | None = None  # None: where all objects of the training and validation images have one
    window: int = Field(14, ge=0)  # patches a side; 0: every block sees the whole image
    channels: int = Field(256, ge=1)
    upsample: Literal[4, 2, 1] = 4  # how much finer than the patches the finest map is
    convs: int = Field(4, ge=0)
    fc_width: int = Field(1024, ge=1)
    anchor_scale: float = Field(8.0, gt=0)
    proposals: int = Field(1000, ge=1)
    rois: int = Field(512, ge=1)
    score: float = Field(0.05, ge=0, lt=1)  # what is less sure is not reported
    overlap: float = Field(0.5, gt=0, le=1)  # of two boxes of a class that overlap more, the surer one is kept
    detections: int = Field(100, ge=1)  # per image


class Detect(Task):
    """Boxes (x0, y0, x1, y1) in pixels of the image as it is given, whatever its size."""

    Options = DetectOptions
    timm_options: ClassVar[Mapping[str, Any]] = {"dynamic_img_size": True}
    crop: ClassVar[str] = "long side resized, padded to a square"
    top: ClassVar[int] = 100
    head: DetectOptions

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of the objects. Raises UserError for images without boxes."""
        if not images.has_boxes or images.classes is None:
            raise UserError(f"--data {images.name}: has no boxes, and detection needs them (coco:PATH or shapes:)")
        if not images.classes:
            raise UserError(f"--data {images.name}: has no classes")
        return images.classes

    def adapt(self, train: ImageSource, val: ImageSource) -> None:
        """Masks are learned where all objects have one. Raises UserError when objects are missing, or wanted masks."""
        for images in (train, val):
            if not any(len(images.objects(index)) for index in range(len(images))):
                raise UserError(f"--data {images.name}: {images.split} has no objects")
            if self.head.masks and not images.has_masks:
                raise UserError(f"head.masks=true: not all objects of {images.split} in {images.name} have a mask")
        if self.head.masks is None:
            self.head = self.head.model_copy(update={"masks": train.has_masks and val.has_masks})

    def network(self, vit: Any) -> nn.Module:
        told = self.head.model_dump()
        return Detector(vit, len(self.classes), **told | {"masks": bool(told["masks"])})

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
        """Inputs: a list of normalised images; targets: a list of dicts, see :func:`sweet.data.jittered`."""
        assert isinstance(data, ImageSource)
        return Samples(
            len(data),
            partial(training_sample, data, recipe, bool(self.head.masks)),
            as_lists,
            batch_size=batch_size,
            seed=recipe.seed,
            rank=rank,
            world=world,
            device=device,
            workers=recipe.workers,
        )

    def loss(self, model: nn.Module, inputs: Any, targets: Any, step: int) -> Tensor:
        """The sum of the losses of proposals, classes, boxes and masks."""
        losses: dict[str, Tensor] = model(inputs, targets)
        return torch.stack([loss.float() for loss in losses.values()]).sum()

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
        """As :meth:`AveragePrecision.compute`, of masks where they were learned and are there; and images, boxes.

        Raises UserError for a set without objects.
        """
        assert isinstance(data, ImageSource)
        comparison = AveragePrecision(self.classes, masks=bool(self.head.masks) and data.has_masks)
        for index, (image, found) in enumerate(
            findings(model, data, data_config, device, min(batch_size, AT_ONCE), workers)
        ):
            comparison.add((image.shape[-2], image.shape[-1]), data.objects(index), found)
        if not comparison.truth:
            raise UserError(f"--data {data.name}: {data.split} has no objects")
        return {**comparison.compute(), "images": len(comparison.images), "boxes": len(comparison.truth)}

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
        """At most ``top`` objects of each image, the surest first; into ``out`` the images with those above 0.5."""
        rows = []
        for index, (_, found) in enumerate(findings(model, images, data_config, device, 1, 0)):
            values = zip(
                found["labels"][:top].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=False
            )
            for label, score, box in values:
                corners = dict(zip(("x0", "y0", "x1", "y1"), (round(value, 1) for value in box), strict=True))
                rows.append(
                    {"image": images.where(index), "class": self.classes[label], "score": round(score, 4)} | corners
                )
            if out is not None:
                name = f"{index:04d}-{Path(images.where(index)).stem}.png"
                save_png(self._with_found(images.decode(index), found), out / name)
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
        """``detections.png``: the first images with what is there and, beside it, what is found."""
        assert isinstance(data, ImageSource)
        some = data.select(range(min(SHEET_IMAGES, len(data))))
        pairs = []
        for index, (_, found) in enumerate(findings(model, some, data_config, device, 1, 0)):
            image, truth = some.decode(index), some.objects(index)
            names = [self.classes[label] for label in truth.labels]
            masks = None if truth.masks is None else torch.from_numpy(truth.masks)
            there = drawn(image, torch.from_numpy(truth.boxes), truth.labels.tolist(), names, masks, TILE)
            pairs.append((there, self._with_found(image, found, TILE)))
        save_png(sheet_of_pairs(pairs, ("there", f"found (score above {SHOWN})"), TILE), out / "detections.png")

    def _with_found(self, image: Image.Image, found: Mapping[str, Tensor], side: int = 0) -> Image.Image:
        sure = found["scores"] > SHOWN
        labels = found["labels"][sure].tolist()
        names = [f"{self.classes[n]} {score:.2f}" for n, score in zip(labels, found["scores"][sure], strict=True)]
        masks = found["masks"][sure] if "masks" in found else None
        return drawn(image, found["boxes"][sure], labels, names, masks, side)


def training_sample(
    images: ImageSource, recipe: FinetuneRecipe, masks: bool, index: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One augmented image, normalised, and its objects."""
    keys = recipe.data
    pixels, seen = jittered(
        images.decode(index),
        images.objects(index),
        keys.img_size,
        scale=keys.scale_jitter,
        hflip=keys.hflip,
        masks=masks,
        generator=generator,
    )
    return normalise(pixels, keys.mean, keys.std), seen


def as_lists(samples: list[tuple[Tensor, Any]]) -> tuple[list[Tensor], list[Any]]:
    """Images differ in size and in how many objects they hold."""
    return [image for image, _ in samples], [seen for _, seen in samples]


def whole_image(images: ImageSource, data_config: DataConfig, index: int) -> tuple[Tensor, None]:
    """One image (C, H, W) as it is, normalised."""
    return normalise(to_tensor(images.decode(index)), data_config.mean, data_config.std), None


@torch.no_grad()
def findings(
    model: nn.Module,
    images: ImageSource,
    data_config: DataConfig,
    device: torch.device | str,
    batch_size: int,
    workers: int,
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Every image, normalised (C, H, W), with what the model finds in it, on the CPU."""
    model.eval()
    whole = partial(whole_image, images, data_config)
    for batch, _ in in_order(len(images), whole, as_lists, batch_size=batch_size, device=device, workers=workers):
        for image, found in zip(batch, model(batch), strict=True):
            yield image, {name: value.cpu() for name, value in found.items()}


TASK = Detect
