"""What a set of images is: a count, labels, and a way to decode one image at a time."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweet.errors import UserError

from .decode import readable, to_rgb
from .objects import Objects

IGNORE = 255  # in a mask: this pixel has no class


class ImageSource(ABC):
    """Images that are decoded one by one, when they are needed; the whole set is never in memory.

    ``labels`` (one class index per image) and ``classes`` (their names) are None for unlabelled images; ``label_lists``
    holds several class indices per image, or none, where the set says which of its classes each image has. Where the
    images have boxes, ``classes`` are those of the objects, and some ``objects`` were ``left_out``. ``mask_classes``
    names the classes of the pixels, None where there are no masks.
    """

    has_boxes = False
    has_masks = False  # a mask for every object
    left_out = 0
    mask_classes: list[str] | None = None
    label_lists: list[list[int]] | None = None

    def __init__(self, name: str, split: str, count: int, labels: list[int] | None, classes: list[str] | None) -> None:
        self.name = name
        self.split = split
        self.count = count
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return self.count

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """The image as stored, in any mode; may raise anything if the file is damaged."""

    def stored(self, index: int) -> bytes | None:
        """The encoded image as it lies in the set; None where it is not in memory."""
        return None

    @abstractmethod
    def where(self, index: int) -> str:
        """The file (and row) of an image, for messages."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the images may have changed; names cache files."""

    def decode(self, index: int) -> Image.Image:
        """The image as RGB, upright. Raises UserError naming the file when it cannot be decoded."""
        with readable(self.where(index)), self.open(index) as image:
            return to_rgb(image)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels as stored, read from the header. Raises UserError naming the file."""
        with readable(self.where(index)), self.open(index) as image:
            return image.size

    def objects(self, index: int) -> Objects:
        """Boxes, labels and masks in the upright image. Raises UserError for a set that has none."""
        raise UserError(f"--data {self.name}: has no boxes")

    def mask(self, index: int) -> NDArray[np.uint8]:
        """(H, W): for each pixel of the upright image its index in ``mask_classes``, or ``IGNORE``.

        Raises UserError naming the file when there is no mask or a wrong one.
        """
        raise UserError(f"{self.where(index)}: has no mask")

    def select(self, indices: Sequence[int]) -> ImageSource:
        """The images at ``indices``, in that order."""
        return Selected(self, indices)


class Selected(ImageSource):
    """Some images of another source."""

    def __init__(self, parent: ImageSource, indices: Sequence[int]) -> None:
        self.parent = parent
        self.indices = [int(index) for index in indices]
        labels = None if parent.labels is None else [parent.labels[index] for index in self.indices]
        super().__init__(parent.name, parent.split, len(self.indices), labels, parent.classes)
        self.has_boxes, self.has_masks = parent.has_boxes, parent.has_masks
        self.mask_classes = parent.mask_classes
        lists = parent.label_lists
        self.label_lists = None if lists is None else [lists[index] for index in self.indices]

    def open(self, index: int) -> Image.Image:
        return self.parent.open(self.indices[index])

    def stored(self, index: int) -> bytes | None:
        return self.parent.stored(self.indices[index])

    def decode(self, index: int) -> Image.Image:
        return self.parent.decode(self.indices[index])

    def where(self, index: int) -> str:
        return self.parent.where(self.indices[index])

    def objects(self, index: int) -> Objects:
        return self.parent.objects(self.indices[index])

    def mask(self, index: int) -> NDArray[np.uint8]:
        return self.parent.mask(self.indices[index])

    def fingerprint(self) -> str:
        return digest(self.parent.fingerprint(), *self.indices)


def digest(*values: object) -> str:
    """A checksum of what the values look like as text, 32 hexadecimal digits."""
    return hashlib.blake2b("\n".join(map(str, values)).encode(), digest_size=16).hexdigest()


def stamps(files: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """(file, bytes, time of change in ns) of each file: what a fingerprint of files is made of."""
    for file in files:
        stat = os.stat(file)
        yield file, stat.st_size, stat.st_mtime_ns
