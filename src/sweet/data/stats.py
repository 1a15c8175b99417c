"""``sweet data stats``: channels, depth, mean and standard deviation of images, and keys of a recipe that fit them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweet.errors import UserError

from .bands import Picture, Stored, StoredBands
from .decode import DEEP, PixelFormat, deep_values, readable
from .images import ImageSource
from .sources import open_images

LOOKED_AT = 64  # images from which channels and range are read off
MEASURED = 2000  # images over which mean and standard deviation are taken
MANY = 8_000_000  # pixels
TAIL = 0.1  # percent of the values at either end that a proposed range may clip
GREY = ("L", "1", "I;16", "I;16L", "I;16B", "I;16N", *DEEP)
FULL = {"uint16": 65535.0, "float": 1.0}  # the range that a type of number has where no other is known
USED = 0.25  # the share of that range which is enough for 8 bits


@dataclass(frozen=True)
class Depth:
    """How the images of a set are stored, and how a model best reads them.

    stored: images of each mode, of at most ``LOOKED_AT``; low and high: smallest and largest value of images of more
    than 8 bits, None where there are none; value_range: what should become 0 and 255, None where the type says it;
    typed: whether the type says a range that holds all values; clipped: percent of the values that lie outside of
    value_range; blank: percent that are no numbers.
    """

    stored: dict[str, int]
    channels: int
    low: float | None = None
    high: float | None = None
    value_range: tuple[float, float] | None = None
    typed: bool = True
    clipped: float = 0.0
    blank: float = 0.0

    @property
    def pixel_format(self) -> PixelFormat:
        """The images as a model of so many channels reads them."""
        return PixelFormat(self.channels, self.value_range)


@dataclass(frozen=True)
class StatsReport:
    """What a split holds, and ``keys``: what to add to ``sweet pretrain`` or ``sweet finetune``."""

    source: str
    split: str
    images: int
    depth: Depth
    mean: list[float]
    std: list[float]
    keys: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        depth = self.depth
        values = {"smallest value": depth.low, "largest value": depth.high, "clipped, %": round(depth.clipped, 3)}
        return {
            "source": self.source,
            "split": self.split,
            "images measured": self.images,
            "stored as": depth.stored,
            "channels": depth.channels,
            **({} if depth.low is None else values),
            "mean": self.mean,
            "std": self.std,
            "keys": " ".join(self.keys),
        }


def stats(spec: str, split: str = "train") -> StatsReport:
    """Measure a split of a source. Raises UserError where no image can be read."""
    images = open_images(spec, split, val_share=0)
    depth = find_depth(images)
    images.read_as(depth.pixel_format)
    moments = []
    for index in picked(len(images), MEASURED):
        try:
            moments.append(moments_of(images.decode(index)))
        except UserError as problem:
            last = problem
    if not moments:
        raise UserError(f"--data {spec}: no image of {images.split} can be read, the last one: {last}")
    mean, std = (values[: depth.channels] for values in mean_and_std(moments))  # grey has three equal channels
    return StatsReport(spec, images.split, len(moments), depth, mean, std, proposed_keys(depth, mean, std))


def proposed_keys(depth: Depth, mean: list[float], std: list[float]) -> list[str]:
    """Keys of a recipe, as on the command line; ``model.in_chans`` only where it is not 3."""

    def listed(values: tuple[float, float] | list[float]) -> str:
        return f"[{','.join(f'{value:g}' for value in values)}]"

    # grey is measured as three equal channels; a channel that never changes would be divided by nothing
    mean, std = mean[: depth.channels], [max(value, 0.001) for value in std[: depth.channels]]
    keys = [f"data.mean={listed(mean)}", f"data.std={listed(std)}"]
    if depth.channels != 3:
        keys.insert(0, f"model.in_chans={depth.channels}")
    if depth.value_range is not None:
        keys.append(f"data.value_range={listed(depth.value_range)}")
    return keys


def picked(count: int, most: int) -> list[int]:
    """At most so many of the numbers 0 .. count-1, evenly."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).astype(int).tolist()))


def find_depth(images: ImageSource) -> Depth:
    """Look at some images as they are stored; those that cannot be read are passed over."""
    stored: Counter[str] = Counter()
    channels: Counter[int] = Counter()
    deep: list[NDArray[Any]] = []
    for index in picked(len(images), LOOKED_AT):
        try:
            with readable(images.where(index)), images.open(index) as image:
                stored[image.mode] += 1
                channels[channels_of(image)] += 1
                deep += some_deep_values(image)
        except UserError:
            continue
    most = max(channels, key=lambda number: channels[number], default=3)
    if not deep:
        return Depth(dict(stored), most)
    values = np.concatenate(deep).astype(np.float64)
    finite = np.isfinite(values)
    blank, values = 100 * float(np.isnan(values).mean()), values[finite]
    if not values.size:
        return Depth(dict(stored), most, blank=blank)
    low, high = float(values.min()), float(values.max())
    full = typed_range(values, {str(array.dtype) for array in deep})
    value_range = proposed_range(values, full)
    outside = 0.0 if value_range is None else np.mean((values < value_range[0]) | (values > value_range[1]))
    return Depth(dict(stored), most, low, high, value_range, full is not None, 100 * float(outside), blank)


def channels_of(image: Stored) -> int:
    """Channels a model needs for an image: all of what only numbers hold, 3 for colours, 1 for grey."""
    if isinstance(image, StoredBands):
        return int(image.values.shape[2])
    return 1 if image.mode in GREY else 3


def some_deep_values(image: Stored) -> list[NDArray[Any]]:
    """The values of an image of more than 8 bits, at most 10,000 of them; [] for others."""
    values = image.values if isinstance(image, StoredBands) else deep_values(image)
    if values is None:
        return []
    flat = values.reshape(-1)
    return [] if flat.dtype in (np.uint8, np.bool_) else [flat[:: max(1, flat.size // 10_000)]]


def typed_range(values: NDArray[np.float64], kinds: set[str]) -> float | None:
    """What is white by the type of number, where all values lie between 0 and that."""
    kind = "float" if all(name.startswith("float") for name in kinds) else next(iter(kinds)) if len(kinds) == 1 else ""
    full = FULL.get(kind)
    return full if full is not None and values.min() >= 0 and values.max() <= full else None


def proposed_range(values: NDArray[np.float64], full: float | None) -> tuple[float, float] | None:
    """None where the images use a fair share of :func:`typed_range`; else two round numbers."""
    low, high = np.percentile(values, [TAIL, 100 - TAIL])
    if full is not None and high >= USED * full:
        return None
    if 0 <= low < 0.1 * high:
        low = 0.0
    step = 10.0 ** (math.floor(math.log10(max(high - low, 1e-12))) - 1)  # two digits of the range
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return (round(low, 9), round(high if high > low else low + 1, 9))


def moments_of(image: Picture) -> NDArray[np.float32]:
    """(2, C): mean and mean square per channel of one image, in 0..1: every image counts alike, whatever its size."""
    width, height = image.size
    step = width * height // MANY
    if step > 1:  # of a huge image some rows are enough
        values = np.concatenate([image.crop((0, top, width, top + 1)) for top in range(0, height, step)])
    else:
        values = np.asarray(image)
    pixels = values.reshape(-1, values.shape[-1]).astype(np.float32) / 255
    mean = pixels.mean(0)
    return np.stack([mean, np.square(pixels, out=pixels).mean(0)])


def mean_and_std(moments: list[NDArray[np.float32]]) -> tuple[list[float], list[float]]:
    """Of each channel over images, from their :func:`moments_of`."""
    mean, square = np.mean(moments, 0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return [round(float(x), 4) for x in mean], [round(float(x), 4) for x in std]


def depth_handling(mode: str) -> str | None:
    """What is done with an image of a mode; None for RGB."""
    known = {
        "L": "made RGB of three equal channels, or one channel for a model of one",
        "1": "black and white become 0 and 255",
        "LA": "grey, transparency is dropped",
        "RGBA": "transparency is dropped (a model of four channels keeps it)",
        "PA": "colours of the palette, transparency is dropped",
        "P": "colours of the palette, transparency is dropped where there is any",
        "CMYK": "converted to RGB without a colour profile",
        "YCbCr": "converted to RGB",
        "LAB": "converted to RGB",
        "HSV": "converted to RGB",
    }
    if mode == "RGB":
        return None
    if mode.startswith("I;16"):
        return "16 bits: the upper 8 are kept"
    if mode.endswith("xuint8"):
        return "8 bits, taken as they are"
    return known.get(mode)
