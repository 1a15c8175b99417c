from __future__ import annotations

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from sweet.data import normalise, random_crop_flip, random_resized_crop
from sweet.data.augment import random_boxes, random_flips


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator(1))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("out_size", [8, 16, 24])
def test_crops_are_those_of_torchvision(mode: str, out_size: int) -> None:
    images = noise(20, 16, 18)
    ours = random_resized_crop(images, out_size, (0.1, 1.0), generator=generator(), interpolation=mode)
    draws = generator()  # the same boxes and flips again
    boxes = random_boxes([(16, 18)] * 20, (0.1, 1.0), (3 / 4, 4 / 3), draws)
    flips = random_flips(20, 0.5, draws)
    assert 0 < flips.sum() < 20
    for image, box, flip, got in zip(images, boxes.tolist(), flips, ours, strict=True):
        expected = functional.resized_crop(
            image.float() / 255, *box, [out_size, out_size], InterpolationMode(mode), antialias=True
        ).clamp(0, 1)
        torch.testing.assert_close(got, expected.flip(2) if flip else expected, atol=1e-5, rtol=0)


def test_the_whole_image_is_left_alone() -> None:
    images = noise(3)
    whole = random_resized_crop(images, 16, (1.0, 1.0), (1.0, 1.0), generator=generator(), hflip=0.0)
    torch.testing.assert_close(whole, images / 255)
    assert whole.is_contiguous()
    flipped = random_resized_crop(images, 16, (1.0, 1.0), (1.0, 1.0), generator=generator(), hflip=1.0)
    torch.testing.assert_close(flipped, (images / 255).flip(3))


def test_boxes_lie_inside_and_cover_the_scale() -> None:
    boxes = random_boxes([(32, 48)] * 2000, (0.2, 0.8), (3 / 4, 4 / 3), generator())
    top, left, rows, columns = boxes.unbind(1)
    assert (boxes[:, :2] >= 0).all() and (top + rows <= 32).all() and (left + columns <= 48).all()
    share = rows * columns / (32 * 48)
    assert 0.17 < share.min() < 0.22 and 0.5 < share.max() < 0.84
    aspect = columns / rows
    assert 0.68 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.45


@pytest.mark.parametrize(("size", "expected"), [((10, 100), (10, 13)), ((100, 10), (13, 10))])
def test_a_box_that_cannot_fit_is_the_centre(size: tuple[int, int], expected: tuple[int, int]) -> None:
    ((top, left, *shape),) = random_boxes([size], (1.0, 1.0), (3 / 4, 4 / 3), generator()).tolist()
    assert tuple(shape) == expected
    assert (top, left) == ((size[0] - shape[0]) // 2, (size[1] - shape[1]) // 2)


@pytest.mark.parametrize("size", [(1, 1), (9, 1), (1, 9)])
@pytest.mark.parametrize("aspect", [4.0, 0.25])
def test_a_box_of_a_strip_has_a_pixel(size: tuple[int, int], aspect: float) -> None:
    boxes = random_boxes([size] * 50, (0.2, 1.0), (3 / 4 * aspect, 4 / 3 * aspect), generator())
    assert boxes[:, 2:].min() == 1
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= torch.tensor(size)).all()


def test_crop_and_flip_only_move_pixels() -> None:
    images = noise(64, 8, 12)
    moved = random_crop_flip(images, 2, generator=generator())
    assert moved.dtype == torch.uint8 and moved.shape == images.shape
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    seen = set()
    for image, got in zip(padded, moved, strict=True):
        windows = {(top, left): image[:, top : top + 8, left : left + 12] for top in range(5) for left in range(5)}
        matches = [
            (*place, flip)
            for place, window in windows.items()
            for flip in (False, True)
            if torch.equal(got, window.flip(2) if flip else window)
        ]
        seen.update(matches)
        assert len(matches) == 1
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))


def test_randomness_comes_from_the_generator_alone() -> None:
    images = noise(4)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for function in (
        lambda seed: random_crop_flip(images, 4, generator=generator(seed)),
        lambda seed: random_resized_crop(images, 16, (0.2, 1.0), generator=generator(seed)),
    ):
        assert torch.equal(function(5), function(5))
        assert not torch.equal(function(5), function(6))
    assert torch.equal(torch.get_rng_state(), state)


def test_normalise() -> None:
    images = noise(2)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    ours = normalise(images, mean, std)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, functional.normalize(images / 255, list(mean), list(std)))
    torch.testing.assert_close(normalise(images / 255, mean, std), ours)
    grey = normalise(images, (0.5,), (0.5,))
    torch.testing.assert_close(grey, functional.rgb_to_grayscale(images / 255) * 2 - 1, atol=1e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_the_same_crops() -> None:
    images = noise(4)
    for function in (
        lambda x: random_crop_flip(x, 4, generator=generator()).float(),
        lambda x: random_resized_crop(x, 16, (0.2, 1.0), generator=generator()),
    ):
        torch.testing.assert_close(function(images.cuda()).cpu(), function(images), atol=2e-2, rtol=0)
