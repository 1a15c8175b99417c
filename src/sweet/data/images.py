"""What a set of images is: a count, labels, and a way to decode one image at a time."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sweet.errors import UserError

from .bands import Picture, Stored
from .decode import PixelFormat, readable, to_picture
from .findings import Finding
from .objects import Objects

IGNORE = 255  # in a mask: this pixel has no class


class ImageSource(ABC):
    """Images that are decoded one by one, when they are needed; the whole set is never in memory.

    ``labels`` (one class index per image) and ``classes`` (their names) are None for unlabelled images; ``label_lists``
    holds several class indices per image, or none, where the set says which of its classes each image has. Where the
    images have boxes, ``classes`` are those of the objects, and some ``objects`` were ``left_out``. ``mask_classes``
    names the classes of the pixels, None where there are no masks. ``shard_counts``: how many images lie together, for
    each place, where it is best to read them place by place; ``mixing`` how (of :class:`.epoch_order.ShardOrder`).
    """

    has_boxes = False
    has_masks = False  # a mask for every object
    left_out = 0
    is_drawn = False  # this is a share of a split
    mask_classes: list[str] | None = None
    label_lists: list[list[int]] | None = None
    pixel_format = PixelFormat()
    shard_counts: list[int] | None = None
    mixing: Mapping[str, int] = {}

    def __init__(self, name: str, split: str, count: int, labels: list[int] | None, classes: list[str] | None) -> None:
        self.name = name
        self.split = split
        self.count = count
        self.labels = labels
        self.classes = classes

    @property
    def drawn_text(self) -> str | None:
        """That these are a share of the training images, because there is no such split; None where there is one."""
        if not self.is_drawn or self.split == "train":
            return None
        return f"--data {self.name} has no {self.split} split: {len(self):,} of its images, drawn by seed 0, stand in"

    def __len__(self) -> int:
        return self.count

    @abstractmethod
    def open(self, index: int) -> Stored:
        """The image as stored, in any mode; may raise anything if the file is damaged."""

    @property
    def is_labelled(self) -> bool:
        """Whether each image has a class."""
        return self.labels is not None

    def read_as(self, pixels: PixelFormat) -> ImageSource:
        """The same images as a model of so many channels takes them."""
        self.pixel_format = pixels
        return self

    def pixels_only(self) -> ImageSource:
        """The same images, without labels where to read these takes long: for what needs none."""
        return self

    def places(self) -> Iterator[str]:
        """A name of every place where images lie: of each image, or of each shard with the number of its images."""
        return map(self.where, range(len(self)))

    def spread(self, count: int) -> list[int]:
        """About ``count`` images that stand for all."""
        return list(range(0, len(self), max(1, len(self) // count)))

    def findings(self) -> list[Finding]:
        """What was odd when the set was opened, without a look at its images."""
        return []

    def strata(self) -> list[int] | None:
        """A class of each image, by which a split is drawn: of several the rarest; None where there are no classes."""
        if self.labels is None and self.label_lists is not None:
            return rarest(self.label_lists, none=len(self.classes or ()))
        return self.labels

    def stored(self, index: int) -> bytes | None:
        """The encoded image as it lies in the set; None where it is not in memory."""
        return None

    @abstractmethod
    def where(self, index: int) -> str:
        """The file (and row) of an image, for messages."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the images may have changed; names cache files."""

    def decode(self, index: int) -> Picture:
        """The image upright, in 8 bits: RGB, or all channels for a model of more. Raises UserError naming the file."""
        with readable(self.where(index)), self.open(index) as image:
            return to_picture(image, self.pixel_format)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels as stored, read from the header. Raises UserError naming the file."""
        with readable(self.where(index)), self.open(index) as image:
            return image.size

    @property
    def first_size(self) -> tuple[int, int] | None:
        """That of the first image; None where it cannot be read."""
        with suppress(UserError):
            return self.size(0)
        return None

    def objects(self, index: int) -> Objects:
        """Boxes, labels and masks in the upright image. Raises UserError for a set that has none."""
        raise UserError(f"--data {self.name}: has no boxes")

    def mask(self, index: int) -> NDArray[np.uint8]:
        """(H, W): for each pixel of the upright image its index in ``mask_classes``, or ``IGNORE``.

        Raises UserError naming the file when there is no mask or a wrong one.
        """
        raise UserError(f"{self.where(index)}: has no mask")

    def annotation(self, index: int) -> object:
        """The boxes or the mask of an image as they are stored, for a checksum; None where they are in no file."""
        return None

    def relabelled(self, classes: Sequence[str]) -> bool:
        """Give labels and lists of labels the numbers of ``classes``, which has all of this set's by name.

        False if it has not; objects and masks keep their numbers.
        """
        if self.classes is None or not set(self.classes) <= set(classes):
            return False
        numbers = [classes.index(name) for name in self.classes]
        if self.labels is not None:
            self.labels = [numbers[label] for label in self.labels]
        if self.label_lists is not None:
            self.label_lists = [[numbers[label] for label in several] for several in self.label_lists]
        self.classes = list(classes)
        return True

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
        self.is_drawn = parent.is_drawn
        self.mask_classes = parent.mask_classes
        lists = parent.label_lists
        self.label_lists = None if lists is None else [lists[index] for index in self.indices]
        self.pixel_format = parent.pixel_format

    def read_as(self, pixels: PixelFormat) -> ImageSource:
        self.pixel_format = pixels
        self.parent.read_as(pixels)
        return self

    def findings(self) -> list[Finding]:
        return self.parent.findings()

    def strata(self) -> list[int] | None:
        strata = self.parent.strata()
        return None if strata is None else [strata[index] for index in self.indices]

    def open(self, index: int) -> Stored:
        return self.parent.open(self.indices[index])

    def stored(self, index: int) -> bytes | None:
        return self.parent.stored(self.indices[index])

    def decode(self, index: int) -> Picture:
        return self.parent.decode(self.indices[index])

    def where(self, index: int) -> str:
        return self.parent.where(self.indices[index])

    def objects(self, index: int) -> Objects:
        return self.parent.objects(self.indices[index])

    def mask(self, index: int) -> NDArray[np.uint8]:
        return self.parent.mask(self.indices[index])

    def annotation(self, index: int) -> object:
        return self.parent.annotation(self.indices[index])

    def fingerprint(self) -> str:
        return digest(self.parent.fingerprint(), *self.indices)


def rarest(lists: Sequence[Sequence[int]], *, none: int) -> list[int]:
    """For each list of labels the one that all lists hold least often; ``none`` for an empty list."""
    counts = Counter(label for several in lists for label in several)
    return [min(several, key=lambda label: (counts[label], label), default=none) for several in lists]


def digest(*values: object) -> str:
    """A checksum of what the values look like as text, 32 hexadecimal digits."""
    return hashlib.blake2b("\n".join(map(str, values)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def stamps(files: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """(file, bytes, time of change in ns) of each file: what a fingerprint of files is made of."""
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:  # a link to nothing: an image that cannot be read, when its turn comes
            yield file, -1, 0
        else:
            yield file, stat.st_size, stat.st_mtime_ns
