"""Batches as a pure function of (seed, step, rank): a resumed run sees exactly what it would have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sweet.errors import UserError
from sweet.template.image_size import ImageSize, joined, sides, size_text

from .augment import normalise, onto, random_boxes, random_crop_flip, random_flips, random_resized_crop
from .balance import balanced_order
from .decode import KERNELS, HasPixels
from .epoch_order import EpochOrder, ShardOrder, step_generator
from .images import ImageSource
from .packed import ImageSet, Packed, centre_crop, labels_of, to_tensor
from .skips import Skips, load_or_next

Augment = Literal["rrc", "crop", "flip", "none"]
Batch = tuple[Tensor, Tensor | None]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATIO = (3 / 4, 4 / 3)


class BatchSource(Protocol):
    """What the training loop reads: batches (inputs, targets), a pure function of the step, so they can be read ahead.

    ``steps_per_epoch`` counts the batches of one epoch, ``iterate(start, stop)`` yields those of steps start..stop-1.
    """

    @property
    def steps_per_epoch(self) -> int: ...

    def iterate(self, start: int, stop: int) -> Iterator[tuple[Any, Any]]: ...

    def whole(self, step: int) -> Tensor:
        """Indices of the images that all processes together take in a step, (b,) int64."""
        ...


@dataclass(eq=False)
class Batches:
    """Shuffled, augmented, normalised training batches of a packed set or of a source.

    ``batch_size``, ``rank`` and ``world`` as of :class:`EpochOrder`. A packed set is moved to ``device`` as a whole.
    Where images may be left out (``skips``), the next one takes the place of one that cannot be read.
    Raises UserError for a number of channels that the images cannot have.

    augment: ``rrc`` random resized crop and flip; ``crop`` shift by up to an eighth of the size (4 of 32
    pixels) and flip; ``flip`` the centre and flip; ``none`` the centre.

    balanced: every class as often as the others, see :func:`balanced_order`; of labelled images only.
    """

    data: ImageSet
    _: KW_ONLY
    batch_size: int
    seed: int
    img_size: ImageSize
    augment: Augment = "rrc"
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    crop_scale: tuple[float, float] = (0.2, 1.0)
    hflip: float = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    balanced: bool = False
    rank: int = 0
    world: int = 1
    device: torch.device | str = "cpu"
    workers: int = 0
    skips: Skips | None = None

    def __post_init__(self) -> None:
        data = self.data
        _check(data, self.img_size, self.mean, any_size=self.augment == "rrc")
        self._labels = labels_of(data)
        share = {"batch_size": self.batch_size, "seed": self.seed, "rank": self.rank, "world": self.world}
        draw = partial(balanced_order, self._labels) if self.balanced and self._labels is not None else None
        self.order: EpochOrder | ShardOrder
        if isinstance(data, ImageSource) and data.shard_counts is not None and draw is None:
            self.order = ShardOrder(data.shard_counts, **share, **data.mixing)
        else:
            self.order = EpochOrder(len(data), **share, draw=draw)
        self.steps_per_epoch, self.indices = self.order.steps_per_epoch, self.order.indices
        self.whole = self.order.whole
        self._images = data.images.to(self.device) if isinstance(data, Packed) else None

    def at(self, step: int) -> Batch:
        """Images float (b, C, H, W), normalised, and labels (see :func:`labels_of`) or None, on the device."""
        return self._finish(*self._pixels(step))

    def iterate(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches ``at(start) .. at(stop - 1)``; workers decode ahead what is not packed."""
        steps = range(start, stop)
        if self._images is not None:
            yield from map(self.at, steps)
        else:
            for pixels, indices in ahead(self._pixels, steps, self.workers):
                yield self._finish(pixels, indices)

    def _pixels(self, step: int) -> tuple[Tensor, Tensor]:
        """The images before normalisation (uint8, or float in 0..1 where resampled here) and their indices."""
        indices = self.indices(step)
        if self._images is None:
            made = [
                load_or_next(partial(self._decode, step, place), index, len(self.data), self.skips)
                for place, index in enumerate(indices.tolist())
            ]
            return torch.stack([pixels for pixels, _ in made]), torch.tensor([index for _, index in made])
        images = self._images[onto(indices, self.device)]
        generator = step_generator(self.seed, step, 0, "augment")
        if self.augment == "rrc":
            pixels = random_resized_crop(
                images,
                self.img_size,
                self.crop_scale,
                self._ratio(),
                generator=generator,
                hflip=self.hflip,
                interpolation=self.interpolation,
                rank=self.rank,
                world=self.world,
            )
        else:
            pixels = self._shift(images, generator, self.rank, self.world)
        return pixels, indices

    def _decode(self, step: int, place: int, index: int) -> Tensor:
        """One decoded, augmented image (C, H, W) uint8; runs in a worker process."""
        assert isinstance(self.data, ImageSource)
        image = self.data.decode(index)
        generator = step_generator(self.seed, step, 0, f"augment {self.rank * self.batch_size + place}")
        if self.augment != "rrc":
            return self._shift(centre_crop(image, self.img_size, self.interpolation)[None], generator)[0]
        box = random_boxes([(image.height, image.width)], self.crop_scale, self._ratio(), generator)
        top, left, rows, columns = box[0].tolist()
        image = image.crop((left, top, left + columns, top + rows))
        pixels = to_tensor(image.resize(sides(self.img_size)[::-1], KERNELS[self.interpolation]))
        return pixels.flip(2) if random_flips(1, self.hflip, generator).item() else pixels

    def _ratio(self) -> tuple[float, float]:
        """Width to height of the crops, around that of the images that come out of them."""
        height, width = sides(self.img_size)
        aspect = width / height
        return RATIO[0] * aspect, RATIO[1] * aspect

    def _shift(self, images: Tensor, generator: torch.Generator, rank: int = 0, world: int = 1) -> Tensor:
        if self.augment == "none":
            return images
        padding = min(sides(self.img_size)) // 8 if self.augment == "crop" else 0
        return random_crop_flip(images, padding, generator=generator, hflip=self.hflip, rank=rank, world=world)

    def _finish(self, pixels: Tensor, indices: Tensor) -> Batch:
        images = normalise(onto(pixels, self.device), self.mean, self.std)
        labels = None if self._labels is None else onto(self._labels[indices], self.device)
        return images, labels


def eval_batches(
    data: ImageSet,
    *,
    batch_size: int,
    img_size: ImageSize,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[Batch]:
    """Every image once, in order, the centre only; the last batch may be smaller. As ``Batches.at``."""
    _check(data, img_size, mean, any_size=False)
    labels = labels_of(data)
    starts, pixels = range(0, len(data), batch_size), partial(_centres, data, img_size, batch_size)
    for start, batch in zip(starts, ahead(pixels, starts, 0 if isinstance(data, Packed) else workers), strict=True):
        images = normalise(onto(batch, device), mean, std)
        yield images, None if labels is None else onto(labels[start : start + batch_size], device)


def whole_images(
    data: ImageSet, keys: HasPixels, *, batch_size: int, device: torch.device | str = "cpu", workers: int = 0
) -> Iterator[Tensor]:
    """The images of :func:`eval_batches` alone, as a model of these ``keys`` sees them."""
    batches = eval_batches(
        data,
        batch_size=batch_size,
        img_size=keys.img_size,
        mean=keys.mean,
        std=keys.std,
        device=device,
        workers=workers,
    )
    return (images for images, _ in batches)


def _centres(data: ImageSet, img_size: ImageSize, count: int, start: int) -> Tensor:
    """The centres of up to ``count`` images from ``start`` on, (b, C, H, W) uint8; of a source, in a worker process."""
    stop = min(start + count, len(data))
    if isinstance(data, Packed):
        return data.images[start:stop]
    kernel = data.pixel_format.interpolation
    return torch.stack([centre_crop(data.decode(index), img_size, kernel) for index in range(start, stop)])


class _Calls(Dataset[Any]):
    """A function as a dataset: item ``key`` is ``make(key)``, or the message of its UserError.

    The function is pickled where workers are spawned.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, key: int) -> Any:
        # A worker's exception would arrive wrapped in its traceback; a UserError must stay one line.
        try:
            return self.make(key)
        except UserError as problem:
            return str(problem)


def ahead(make: Callable[[int], Any], keys: range, workers: int) -> Iterator[Any]:
    """``make(key)`` for every key in order, computed ahead by worker processes (0: here, when it is needed)."""
    if not workers or not keys:
        yield from map(make, keys)
        return
    workers = min(workers, len(keys))
    for made in DataLoader(_Calls(make), batch_size=None, sampler=keys, num_workers=workers):
        if isinstance(made, str):
            raise UserError(made)
        yield made


def _check(data: ImageSet, img_size: ImageSize, mean: Sequence[float], *, any_size: bool) -> None:
    channels = data.images.shape[1] if isinstance(data, Packed) else data.pixel_format.stored_channels
    if len(mean) != channels and (len(mean), channels) != (1, 3):
        grey = ", or 1 for grey" if channels == 3 else ""
        raise UserError(f"data.mean={list(mean)}: {len(mean)} channels; images have {channels}{grey}")
    if isinstance(data, Packed) and not any_size and tuple(data.images.shape[-2:]) != sides(img_size):
        own = joined(*data.images.shape[-2:])
        raise ValueError(f"the set is packed at {size_text(own)} pixels, not {size_text(img_size)}")
