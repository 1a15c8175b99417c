"""Random views of an image and its mask: scale, crop, flip, colours, as mmsegmentation's recipe for ADE20K does them.

Randomness comes only from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from sweet.template.image_size import ImageSize, sides

from .augment import normalise
from .bands import Bands, Picture
from .batches import Augment
from .decode import KERNELS
from .images import IGNORE
from .packed import to_tensor

SCALE = (0.5, 2.0)
LARGEST_SHARE, ATTEMPTS = 0.75, 10  # of one class in a crop; crops to draw before one with more is taken
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32 / 255, 0.5, 0.5, 18 / 360  # each in half of the views, as SSD does
LONGEST = 4  # sides: a strip of 300 x 2 pixels would become one of 76,800 x 512

Draw = Callable[[float, float], float]  # a number between two


def random_view(
    image: Picture,
    mask: NDArray[np.uint8],
    crop: ImageSize,
    *,
    short_side: int,
    augment: Augment,
    hflip: float,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Normalised pixels (C, H, W) and classes (H, W) uint8 of an image scaled to ``short_side`` (0: as is).

    H and W are those of ``crop``, or of the image where that is smaller.

    augment: ``rrc`` scale by 0.5 to 2, crop, flip, colours; ``crop`` crop and flip; ``flip`` the centre and flip;
    ``none`` the centre.
    """

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    full = augment == "rrc"
    scale = draw(*SCALE) if full else 1.0
    width, height = scaled(image.size, short_side, scale)
    most_rows, most_columns = sides(crop)
    size = columns, rows = min(most_columns, width), min(most_rows, height)
    answers = Image.fromarray(mask)
    for _ in range(ATTEMPTS):
        across, down = (0.5, 0.5) if augment in ("flip", "none") else (draw(0, 1), draw(0, 1))
        left, top = round(across * (width - columns)), round(down * (height - rows))
        # In pixels of the stored image, so that only what is kept is resampled.
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, min((left + columns) * x, image.width), min((top + rows) * y, image.height))
        classes = np.array(answers.resize(size, Image.Resampling.NEAREST, box))
        if not full or _is_mixed(classes):
            break
    view = image.resize(size, KERNELS[interpolation], box)
    pixels = normalise(to_tensor(_recoloured(view, draw) if full else view), mean, std)
    targets = torch.from_numpy(classes)
    if augment != "none" and draw(0, 1) < hflip:
        pixels, targets = pixels.flip(2), targets.flip(1)
    return pixels, targets


def scaled(size: tuple[int, int], short_side: int, factor: float = 1.0) -> tuple[int, int]:
    """(width, height) with the short side of ``short_side`` pixels (0: as it is), times ``factor``.

    The long side of a very long image is ``LONGEST`` times as many pixels, as in mmsegmentation's scale of 2048 x 512.
    """
    if short_side:
        factor *= min(short_side / min(size), LONGEST * short_side / max(size))
    width, height = size
    return max(1, round(width * factor)), max(1, round(height * factor))


def _is_mixed(classes: NDArray[np.uint8]) -> bool:
    counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(counts.max() < LARGEST_SHARE * counts.sum())


def _recoloured(image: Picture, draw: Draw) -> Picture:
    if isinstance(image, Bands):
        return _brightened(image, draw)

    changed = image

    def maybe(change: Callable[[Image.Image, float], Image.Image], low: float, high: float) -> None:
        nonlocal changed
        if draw(0, 1) < 0.5:
            changed = change(changed, draw(low, high))

    contrast_first = draw(0, 1) < 0.5
    maybe(tv.adjust_brightness, 1 - BRIGHTNESS, 1 + BRIGHTNESS)
    if contrast_first:
        maybe(tv.adjust_contrast, 1 - CONTRAST, 1 + CONTRAST)
    maybe(tv.adjust_saturation, 1 - SATURATION, 1 + SATURATION)
    maybe(tv.adjust_hue, -HUE, HUE)
    if not contrast_first:
        maybe(tv.adjust_contrast, 1 - CONTRAST, 1 + CONTRAST)
    return changed


def _brightened(image: Bands, draw: Draw) -> Bands:
    """Brightness and contrast of all channels alike; saturation and hue have no meaning beyond colours."""
    values = image.pixels.astype(np.float32)
    if draw(0, 1) < 0.5:
        values *= draw(1 - BRIGHTNESS, 1 + BRIGHTNESS)
    if draw(0, 1) < 0.5:
        values = (values - values.mean()) * draw(1 - CONTRAST, 1 + CONTRAST) + values.mean()
    return Bands(values.round().clip(0, 255).astype(np.uint8))
