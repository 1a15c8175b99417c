"""Boxes and masks go where the pixels go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sweet.data import Objects, jittered, step_generator

WIDTH, HEIGHT = 60, 40
BOXES = [[4, 6, 24, 30], [30, 10, 56, 36], [0, 0, 60, 40]]


def scene() -> tuple[Image.Image, Objects]:
    """A red and a green rectangle on black, and a crowd over all."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    for place, (x0, y0, x1, y1) in enumerate(BOXES):
        masks[place, y0:y1, x0:x1] = True
        if place < 2:
            pixels[y0:y1, x0:x1, place] = 255
    return Image.fromarray(pixels), Objects.of(BOXES, [5, 2, 1], [0, 0, 1], masks.sum((1, 2)), masks)


def jitter(
    step: int, *, masks: bool = True, scale: tuple[float, float] = (0.5, 2.0), size: int = 48, hflip: float = 0.5
) -> tuple[Tensor, dict[str, Tensor]]:
    image, objects = scene()
    generator = step_generator(0, step, 0, "test")
    return jittered(image, objects, size, scale=scale, hflip=hflip, masks=masks, generator=generator)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("step", range(12))
def test_objects_move_with_the_image(step: int, masks: bool) -> None:
    pixels, seen = jitter(step, masks=masks)
    assert pixels.dtype == torch.uint8 and max(pixels.shape[1:]) <= 48
    assert type(seen["boxes"]) is Tensor
    for label, channel in ((5, 0), (2, 1)):
        bright = (pixels[channel] > 127).nonzero()
        if not len(bright):
            assert label not in seen["labels"]
            continue
        if min((bright.amax(0) - bright.amin(0)).tolist()) < 3:
            continue  # a sliver at the border: may be there or not
        (place,) = (seen["labels"] == label).nonzero()[:, 0].tolist()
        top, left = bright.amin(0).tolist()
        bottom, right = (bright.amax(0) + 1).tolist()
        assert (seen["boxes"][place] - torch.tensor([left, top, right, bottom])).abs().max() <= 1
        if masks:
            assert seen["masks"].dtype == torch.uint8
            differ = (seen["masks"][place].bool() != (pixels[channel] > 127)).sum()
            assert differ <= len(bright) ** 0.5 * 4  # a line of pixels along the edges at most
    assert 1 not in seen["labels"]  # crowds teach nothing
    assert ("masks" in seen) == masks


def test_a_pure_function_of_the_generator() -> None:
    torch.manual_seed(0)
    one = jitter(3)
    torch.manual_seed(1)
    same, other = jitter(3), jitter(4)
    assert torch.equal(one[0], same[0]) and all(torch.equal(one[1][key], same[1][key]) for key in one[1])
    assert one[0].shape != other[0].shape or not torch.equal(one[0], other[0])


def test_at_scale_one_nothing_is_cut() -> None:
    pixels, seen = jitter(0, scale=(1.0, 1.0), size=WIDTH, hflip=0.0)
    image, _ = scene()
    assert np.array_equal(pixels.permute(1, 2, 0), np.asarray(image))
    assert seen["boxes"].tolist() == BOXES[:2] and seen["labels"].tolist() == [5, 2]
    pixels, seen = jitter(0, scale=(1.0, 1.0), size=WIDTH, hflip=1.0)
    assert seen["boxes"].tolist() == [[WIDTH - x1, y0, WIDTH - x0, y1] for x0, y0, x1, y1 in BOXES[:2]]


@pytest.mark.parametrize("masks", [True, False])
def test_an_image_without_objects(masks: bool) -> None:
    image, _ = scene()
    nothing = Objects.of([], [], [], [], np.zeros((0, HEIGHT, WIDTH), bool))
    pixels, seen = jittered(
        image, nothing, 32, scale=(0.5, 2), hflip=0.5, masks=masks, generator=step_generator(0, 0, 0, "test")
    )
    assert seen["boxes"].shape == (0, 4) and seen["labels"].shape == (0,)
    assert not masks or seen["masks"].shape == (0, *pixels.shape[1:])
