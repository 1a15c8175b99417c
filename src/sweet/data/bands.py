"""Images of any number of channels: what of Pillow's images is needed here, for what Pillow cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]
STRIPE = 8_000_000  # pixels


@dataclass(frozen=True, eq=False)
class Bands:
    """An upright image of C channels as it reaches a model: ``pixels`` (H, W, C) uint8."""

    pixels: NDArray[np.uint8]

    @property
    def mode(self) -> str:
        return f"{self.pixels.shape[2]} channels"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as of an image of Pillow."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]

    def crop(self, box: tuple[int, int, int, int]) -> Bands:
        """The pixels in (left, top, right, bottom), which lie inside."""
        left, top, right, bottom = box
        return Bands(self.pixels[top:bottom, left:right])

    def resize(self, size: tuple[int, int], resample: Any, box: Box | None = None) -> Bands:
        """Each channel resized by Pillow, as an image of that channel alone would be."""
        channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(self.pixels, 2, 0)]
        return Bands(np.stack([np.asarray(channel.resize(size, resample, box)) for channel in channels], 2))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype=dtype) if copy else np.asarray(self.pixels, dtype=dtype)

    def rgb(self) -> Image.Image:
        """Something to look at: the first three channels as red, green and blue, or the first as grey."""
        if self.pixels.shape[2] < 3:
            return Image.fromarray(np.ascontiguousarray(self.pixels[..., 0])).convert("RGB")
        return Image.fromarray(np.ascontiguousarray(self.pixels[..., :3]))


@dataclass(frozen=True, eq=False)
class StoredBands:
    """An image as it lies in a file that Pillow cannot read: ``values`` (H, W, C) of any type of number."""

    values: NDArray[Any]
    orientation: int = 1  # as EXIF counts them
    format: str = "NPY"  # and pages, of which this is the first: as Pillow calls both
    n_frames: int = 1

    @property
    def mode(self) -> str:
        return f"{self.values.shape[2]}x{self.values.dtype}"

    @property
    def size(self) -> tuple[int, int]:
        return self.values.shape[1], self.values.shape[0]

    def upright(self) -> NDArray[Any]:
        """(H, W, C), turned as :attr:`orientation` says."""
        values = self.values
        if self.orientation in (2, 4, 5, 7):
            values = values[:, ::-1]
        turns = {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(self.orientation, 0)
        return np.rot90(values, turns)

    def __enter__(self) -> StoredBands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


Picture = Image.Image | Bands
Stored = Image.Image | StoredBands


def stripes(image: Picture) -> Iterator[NDArray[np.uint8]]:
    """The pixels (rows, W, C) from top to bottom, :data:`STRIPE` at a time: Pillow gives them as a copy."""
    width, height = image.size
    rows = max(1, STRIPE // width)
    for top in range(0, height, rows):
        yield np.asarray(image.crop((0, top, width, min(top + rows, height))))


def as_rgb(image: Picture) -> Image.Image:
    """An image for people to look at."""
    return image.rgb() if isinstance(image, Bands) else image
