"""A small set as one uint8 tensor: decoded once, cached on disk, cropped on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from sweet.template.image_size import ImageSize, sides

from .bands import Picture
from .cached import cached_tensor
from .decode import KERNELS
from .images import ImageSource, digest
from .label_lists import label_tensor

MAX_BYTES = 2_000_000_000
MAX_SIZE = 96  # pixels of a square; larger images lose too much when they are shrunk before random crops
FORMAT = 2  # part of the cache key: raise it when the pixels of a packed image change


@dataclass(frozen=True)
class Packed:
    """Images (N, C, H, W) uint8 and labels (N,) int64, or (N, K) float32 of lists of labels, or None."""

    images: Tensor
    labels: Tensor | None
    classes: list[str] | None

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: Sequence[int] | Tensor) -> Packed:
        """The images at ``indices``, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, images=self.images[chosen], labels=labels)


ImageSet = ImageSource | Packed


def labels_of(data: ImageSet) -> Tensor | None:
    """As :func:`.label_lists.label_tensor`, of a packed set as well."""
    return data.labels if isinstance(data, Packed) else label_tensor(data)


def should_pack(source: ImageSource, img_size: ImageSize) -> bool:
    """Whether the set is small enough for the memory: at most 2 GB, at most as many pixels as a square of 96."""
    pixels = prod(sides(img_size))
    return pixels <= MAX_SIZE**2 and len(source) * source.pixel_format.stored_channels * pixels <= MAX_BYTES


def packed(source: ImageSource, img_size: ImageSize) -> ImageSet:
    """Small images as one tensor, larger ones as they are."""
    return pack(source, img_size) if should_pack(source, img_size) else source


def pack(source: ImageSource, img_size: ImageSize) -> Packed:
    """Decode every image: resized to cover ``img_size`` (antialiased), then a centre crop.

    Kept in a file of the cache folder. Raises UserError naming the file of a corrupt image.
    """
    key = digest(FORMAT, source.name, source.split, source.fingerprint(), img_size, *source.pixel_format.key())
    shape = (len(source), source.pixel_format.stored_channels, *sides(img_size))

    def decode_all() -> Tensor:
        images = torch.empty(shape, dtype=torch.uint8)
        for index in range(len(source)):  # threads do not help: the time is in Pillow's Python, not in decoding
            images[index] = centre_crop(source.decode(index), img_size, source.pixel_format.interpolation)
        return images

    pixels = cached_tensor(key, "images", shape, torch.uint8, decode_all)
    return Packed(pixels, label_tensor(source), source.classes)


def resized(image: Picture, size: ImageSize, interpolation: str = "bicubic") -> Picture:
    """The largest centre of the shape of ``size``, resized to it (antialiased); unchanged if it is that already.

    Of a square: the short side to ``size``, then the centre.
    """
    rows, columns = sides(size)
    if image.size == (columns, rows):
        return image
    width = min(image.width, image.height * columns / rows)
    height = min(image.height, image.width * rows / columns)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize((columns, rows), KERNELS[interpolation], box=(left, top, left + width, top + height))


def centre_crop(image: Picture, size: ImageSize, interpolation: str = "bicubic") -> Tensor:
    """:func:`resized` as (C, H, W) uint8."""
    return to_tensor(resized(image, size, interpolation))


def to_tensor(image: Picture) -> Tensor:
    """(C, H, W) uint8 of an RGB image, or of one with other channels."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
