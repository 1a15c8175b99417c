"""Random views: image and mask stay together, and everything is a function of the generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sweet.data.views import LARGEST_SHARE, random_view, scaled

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def halves(width: int = 40, height: int = 30) -> tuple[Image.Image, np.ndarray]:
    """Blocks of two greys, class 1 where it is light."""
    rows, columns = np.indices((height, width))
    mask = ((rows // 10 + columns // 10) % 2).astype(np.uint8)
    return Image.fromarray(np.stack([200 * mask + 20] * 3, -1)), mask


def view(seed: int, crop: int = 24, image: Any = None, mask: Any = None, **changes: Any) -> tuple[Tensor, Tensor]:
    options: dict[str, Any] = {
        "short_side": 0, "augment": "rrc", "hflip": 0.5, "mean": MEAN, "std": STD, "interpolation": "bilinear"
    }  # fmt: skip
    if image is None:
        image, mask = halves()
    generator = torch.Generator().manual_seed(seed)
    return random_view(image, mask, crop, **(options | changes), generator=generator)


def bright(pixels: Tensor) -> Tensor:
    """The first channel in 0..1."""
    return pixels[0] * STD[0] + MEAN[0]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_mask_goes_where_the_image_goes(interpolation: str) -> None:
    scales = []
    for seed in range(30):
        pixels, classes = view(seed, interpolation=interpolation)
        assert pixels.shape == (3, *classes.shape) and pixels.dtype == torch.float32
        assert max(classes.shape) <= 24 and classes.dtype == torch.uint8
        light = bright(pixels) > bright(pixels).mean()
        assert (light == (classes == 1)).float().mean() > 0.85  # all but the edges
        scales.append(classes.numel())
    # of sizes between 20 x 15 and 80 x 60 a fifth does not fill the crop: 6 of 30, with a spread of 2
    assert min(scales) >= 300 and max(scales) == 24 * 24
    assert 2 <= sum(size < 24 * 24 for size in scales) <= 12


def test_a_view_is_a_function_of_the_generator() -> None:
    first, again, other = view(3), view(3), view(4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(1)
    assert torch.equal(view(3)[0], first[0])


def test_the_centre_alone() -> None:
    image, mask = halves()
    pixels, classes = view(0, 20, augment="none")
    assert np.array_equal(classes, mask[5:25, 10:30])
    stored = torch.from_numpy(np.array(image)[5:25, 10:30, 0]) / 255
    torch.testing.assert_close(bright(pixels), stored)
    pixels, classes = view(1, 64, augment="none")  # more than there is
    assert np.array_equal(classes, mask) and pixels.shape == (3, 30, 40)


def test_flip_changes_no_place() -> None:
    _, mask = halves()
    for seed in range(6):
        _, classes = view(seed, 20, augment="flip", hflip=float(seed % 2))
        assert np.array_equal(classes.flip(1) if seed % 2 else classes, mask[5:25, 10:30])


def test_crop_changes_place_alone() -> None:
    _, mask = halves()
    random = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    places = set()
    for seed in range(12):
        pixels, _ = view(seed, 8, Image.fromarray(random), mask, augment="crop", hflip=float(seed % 2))
        pixels = pixels.flip(2) if seed % 2 else pixels
        values = (bright(pixels) * 255).round().numpy().astype(np.uint8)
        found = [
            (top, left)
            for top in range(23)
            for left in range(33)
            if np.array_equal(random[top : top + 8, left : left + 8, 0], values)
        ]
        assert len(found) == 1
        places.add(found[0])
    tops, lefts = zip(*places, strict=True)
    assert min(tops) < 6 and max(tops) > 16 and min(lefts) < 8 and max(lefts) > 24  # of 0..22 and 0..32


def test_a_crop_of_one_class_is_drawn_again() -> None:
    """Class 1 fills a corner of a large image: chance alone would show it in few crops."""
    mask = np.zeros((60, 60), np.uint8)
    mask[:24, :24] = 1
    image = Image.fromarray(np.zeros((60, 60, 3), np.uint8))
    mixed = {augment: 0 for augment in ("rrc", "crop")}
    for augment in mixed:
        for seed in range(40):
            classes = view(seed, 16, image, mask, augment=augment)[1]
            mixed[augment] += int(max((classes == label).float().mean() for label in (0, 1)) < LARGEST_SHARE)
    assert mixed["rrc"] > 2 * mixed["crop"]


def test_colours_change() -> None:
    grey = Image.new("RGB", (16, 16), (120, 90, 60))
    flat = np.zeros((16, 16), np.uint8)
    (plain,) = {tuple(view(seed, 4, grey, flat, augment="crop")[0][:, 0, 0].tolist()) for seed in range(20)}
    assert plain == pytest.approx([(value / 255 - m) / s for value, m, s in zip((120, 90, 60), MEAN, STD, strict=True)])
    seen = [tuple(view(seed, 4, grey, flat)[0][:, 0, 0].tolist()) for seed in range(160)]
    # each of four changes is made in half of the views: 10 of 160 stay as they are, with a spread of 3
    assert 1 <= sum(colour == pytest.approx(plain, abs=0.02) for colour in seen) <= 20


def test_sizes() -> None:
    assert scaled((480, 360), 0) == (480, 360)
    assert scaled((480, 360), 180) == scaled((480, 360), 360, 0.5) == (240, 180)
    assert scaled((100, 2), 1, 0.1) == (1, 1)  # a strip: its long side is at most four short sides
    assert scaled((100, 2), 10) == (40, 1)
    _, classes = view(0, 60, short_side=60, augment="none")
    assert classes.shape == (60, 60)  # of 80 x 60
