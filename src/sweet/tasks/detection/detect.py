"""Detection: Faster R-CNN, or Mask R-CNN where every object has a mask; average precision by the COCO protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor, nn

from sweet.data import BatchSource, Finding, ImageSet, ImageSource, Picture, in_order, jittered, normalise, to_tensor
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneDataKeys
from sweet.storage.records import DataConfig
from sweet.tasks.pictures import drawn, file_name, save_png, sheet_of_pairs
from sweet.tasks.task import EvalSettings, Metrics, Row, Task, TrainSettings

from .average_precision import AveragePrecision
from .detector import DetectOptions, Detector

AT_ONCE = 8  # images of an evaluation in one forward pass, at most
SHOWN = 0.5  # objects below this score are not drawn, unless another threshold is given
SHEET_IMAGES, TILE = 8, 320


class Detect(Task):
    """Boxes (x0, y0, x1, y1) in pixels of the image as it is given, whatever its size."""

    Options = DetectOptions
    timm_options: ClassVar[Mapping[str, Any]] = {"dynamic_img_size": True}
    crop: ClassVar[str] = "resized to fit, padded at the right and the bottom"
    top: ClassVar[int] = 100
    without_effect: ClassVar[tuple[str, ...]] = (
        *("mixup", "cutmix", "label_smoothing"),
        *("data.augment", "data.crop_scale"),
    )
    interpolates: ClassVar[bool] = False
    head: DetectOptions

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of the objects. Raises UserError for images without boxes."""
        if not images.has_boxes or images.classes is None:
            raise UserError(
                f"--data {images.name}: has no boxes, and detection needs them (coco:PATH, yolo:PATH or shapes:)"
            )
        if not images.classes:
            raise UserError(f"--data {images.name}: has no classes")
        return images.classes

    def adapt(self, train: ImageSource, val: ImageSource) -> None:
        """Masks are learned where all objects have one. Raises UserError when objects are missing, or wanted masks."""
        for images in (train, val):
            if not has_objects(images):
                raise UserError(f"--data {images.name}: {images.split} has no objects")
            if self.head.masks and not images.has_masks:
                raise UserError(f"head.masks=true: not all objects of {images.split} in {images.name} have a mask")
        if self.head.masks is None:
            self.head = self.head.model_copy(update={"masks": train.has_masks and val.has_masks})

    def findings(self, images: ImageSource) -> list[Finding]:
        """Those of the set itself name classes without an object."""
        return []

    def network(self, vit: Any) -> nn.Module:
        return Detector(vit, len(self.classes), self.head)

    def batches(self, data: ImageSet, settings: TrainSettings) -> BatchSource:
        """Inputs: a list of normalised images; targets: a list of dicts, see :func:`sweet.data.jittered`."""
        assert isinstance(data, ImageSource)
        load = partial(training_sample, data, settings.recipe.data, bool(self.head.masks))
        return settings.samples(len(data), load, as_lists)

    def loss(self, model: nn.Module, inputs: Any, targets: Any, step: int) -> Tensor:
        """The sum of the losses of proposals, classes, boxes and masks."""
        losses: dict[str, Tensor] = model(inputs, targets)
        return torch.stack([loss.float() for loss in losses.values()]).sum()

    def evaluate(self, model: nn.Module, data: ImageSet, settings: EvalSettings) -> Metrics:
        """As :meth:`AveragePrecision.compute`, of masks where they were learned and the set has them.

        Raises UserError for a set without objects.
        """
        assert isinstance(data, ImageSource)
        precision = AveragePrecision(self.classes, masks=bool(self.head.masks) and data.has_masks)
        for index, (image, found) in enumerate(detections(model, data, settings)):
            precision.add((image.shape[-2], image.shape[-1]), data.objects(index), found)
        if not precision.truth:
            raise UserError(f"--data {data.name}: {data.split} has no objects")
        return precision.compute()

    def predict(
        self, model: nn.Module, images: ImageSource, settings: EvalSettings, *, top: int, out: Path | None
    ) -> list[Row]:
        """At most ``top`` objects of each image, the surest first, of those that reach the threshold.

        Into ``out`` go the images with those above it, by default 0.5. How many these are is a note.
        """
        rows: list[Row] = []
        least, drawn_from = settings.threshold or 0.0, SHOWN if settings.threshold is None else settings.threshold
        sure = boxes_found = 0
        for index, (_, found) in enumerate(detections(model, images, settings)):
            boxes_found, sure = boxes_found + len(found["scores"]), sure + int((found["scores"] > drawn_from).sum())
            found = {key: value[found["scores"] >= least] for key, value in found.items()}
            labels, scores, boxes = (found[key][:top].tolist() for key in ("labels", "scores", "boxes"))
            for label, score, box in zip(labels, scores, boxes, strict=True):
                corners = {name: round(value, 1) for name, value in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
                rows.append(
                    {"image": images.where(index), "class": self.classes[label], "score": round(score, 4)} | corners
                )
            if out is not None:
                name = file_name(f"{index:04d}", images.where(index))
                save_png(self._with_found(images.decode(index), found, above=drawn_from), out / name)
        self.notes.append(f"{sure} of {boxes_found} boxes above {drawn_from:g}, in {len(images)} images")
        return rows

    def pictures(self, model: nn.Module, data: ImageSet, settings: EvalSettings, metrics: Metrics, out: Path) -> None:
        """``detections.png``: the first images with what is there and, beside it, what is found."""
        assert isinstance(data, ImageSource)
        first = data.select(range(min(SHEET_IMAGES, len(data))))
        pairs = []
        for index, (_, found) in enumerate(detections(model, first, settings)):
            image, truth = first.decode(index), first.objects(index)
            names = [self.classes[label] for label in truth.labels]
            masks = None if truth.masks is None else torch.from_numpy(truth.masks)
            there = drawn(image, torch.from_numpy(truth.boxes), truth.labels.tolist(), names, masks, TILE)
            pairs.append((there, self._with_found(image, found, TILE)))
        save_png(sheet_of_pairs(pairs, ("there", f"found (score above {SHOWN})"), TILE), out / "detections.png")

    def _with_found(self, image: Picture, found: Mapping[str, Tensor], side: int = 0, *, above: float = SHOWN) -> Image:
        sure = found["scores"] > above
        labels = found["labels"][sure].tolist()
        names = [f"{self.classes[n]} {score:.2f}" for n, score in zip(labels, found["scores"][sure], strict=True)]
        masks = found["masks"][sure] if "masks" in found else None
        return drawn(image, found["boxes"][sure], labels, names, masks, side)


def has_objects(images: ImageSource) -> bool:
    """Whether there is an object at all; where a set lists the classes of every image, none of these is opened."""
    if images.label_lists is not None:
        return any(images.label_lists)
    return any(len(images.objects(index)) for index in range(len(images)))


def training_sample(
    images: ImageSource, keys: FinetuneDataKeys, masks: bool, index: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One augmented image (C, h, w), normalised, and its objects."""
    pixels, objects = jittered(
        images.decode(index),
        images.objects(index),
        keys.img_size,
        scale=keys.scale_jitter,
        hflip=keys.hflip,
        masks=masks,
        generator=generator,
    )
    return normalise(pixels, keys.mean, keys.std), objects


def as_lists(samples: list[tuple[Tensor, Any]]) -> tuple[list[Tensor], list[Any]]:
    """Images differ in size and in how many objects they hold, so they stay lists."""
    return [image for image, _ in samples], [objects for _, objects in samples]


def whole_image(images: ImageSource, data_config: DataConfig, index: int) -> tuple[Tensor, None]:
    """One image (C, H, W) as it is, normalised."""
    return normalise(to_tensor(images.decode(index)), data_config.mean, data_config.std), None


@torch.no_grad()
def detections(
    model: nn.Module, images: ImageSource, settings: EvalSettings
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Every image, normalised (C, H, W), with what the model finds in it, on the CPU."""
    model.eval()
    whole = partial(whole_image, images, settings.data_config)
    size = min(settings.batch_size, AT_ONCE)
    batches = in_order(len(images), whole, as_lists, batch_size=size, device=settings.device, workers=settings.workers)
    for batch, _ in settings.shown(batches, len(images), size):
        for image, found in zip(batch, model(batch), strict=True):
            yield image, {name: value.cpu() for name, value in found.items()}


TASK = Detect
