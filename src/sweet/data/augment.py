"""Random crops of a whole batch at once, from uint8, on whatever device the batch lies on.

Randomness comes only from the generator that is passed in. It is drawn on the generator's device (the CPU
everywhere in sweet), so that a GPU sees the same crops. Much is done in place: on a CPU, fresh memory costs more
than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sweet.template.image_size import ImageSize, sides

ATTEMPTS = 10  # as torchvision: draws of area and ratio before falling back to a centre crop
LUMA = (0.299, 0.587, 0.114)


def random_resized_crop(
    images: Tensor,
    out_size: ImageSize,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    *,
    generator: torch.Generator,
    hflip: float = 0.5,
    interpolation: str = "bicubic",
    rank: int = 0,
    world: int = 1,
) -> Tensor:
    """torchvision's RandomResizedCrop (antialiased) and a flip: uint8 (B,C,h,w) -> float (B,C,H,W) in 0..1.

    The images are part ``rank`` of a batch of ``world`` such parts, and get the crops that they get in the whole.
    Resampling is separable: each crop is two small matrix products, rows times image times columns.
    """
    count, channels, height, width = images.shape
    mine = slice(rank * count, (rank + 1) * count)
    boxes = onto(random_boxes([(height, width)] * (count * world), scale, ratio, generator)[mine], images.device)
    flip = onto(random_flips(count * world, hflip, generator)[mine], images.device)
    top, left, rows, columns = boxes.unbind(1)
    out_rows, out_columns = sides(out_size)
    across = resampling(left, columns, width, out_columns, interpolation)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    down = resampling(top, rows, height, out_rows, interpolation).div_(255)
    # Rows before channels: then each image is one product across and one down, not one for every channel.
    pixels = images.transpose(1, 2).to(torch.float32).reshape(count, height * channels, width)
    pixels = torch.bmm(pixels, across.mT).view(count, height, channels * out_columns)
    pixels = torch.bmm(down, pixels).view(count, out_rows, channels, out_columns).transpose(1, 2)
    return pixels.contiguous().clamp_(0, 1)  # bicubic overshoots


def random_boxes(
    sizes: Sequence[tuple[int, int]],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Crops (top, left, height, width) in whole pixels, (B, 4) int64, for images of ``sizes`` (H, W).

    The area is a uniform share in ``scale``, the aspect log-uniform in ``ratio``; when ten draws do not fit
    into an image, its largest centre crop of an allowed aspect.
    """
    height, width = np.array(sizes, np.float32).T
    drawn = torch.rand(4, len(sizes), ATTEMPTS, generator=generator, device=generator.device)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * drawn[1]).numpy()
    draws = drawn.numpy()  # for a single image, as workers draw it, torch takes twice as long
    area = (height * width)[:, None] * (np.float32(scale[0]) + np.float32(scale[1] - scale[0]) * draws[0])
    rows, columns = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (rows > 0) & (rows <= height[:, None]) & (columns > 0) & (columns <= width[:, None])
    image, first, none = np.arange(len(sizes)), fits.argmax(1), ~fits.any(1)
    most = np.rint(width / np.float32(ratio[0])), np.rint(height * np.float32(ratio[1]))
    rows = np.where(none, most[0].clip(1, height), rows[image, first])
    columns = np.where(none, most[1].clip(1, width), columns[image, first])
    top = np.where(none, (height - rows) / 2, draws[2, :, 0] * (height - rows + 1))
    left = np.where(none, (width - columns) / 2, draws[3, :, 0] * (width - columns + 1))
    return torch.from_numpy(np.stack((top, left, rows, columns), 1)).long()


def random_flips(count: int, share: float, generator: torch.Generator) -> Tensor:
    """(B,) bool, true with probability ``share``."""
    return torch.rand(count, generator=generator, device=generator.device) < share


def resampling(start: Tensor, length: Tensor, size: int, out_size: int, interpolation: str) -> Tensor:
    """Weights (B, out_size, size) that resample pixels [start, start + length) of a line of ``size`` pixels.

    The kernel is widened when shrinking (antialiasing) and sees nothing outside the crop, as in Pillow.
    """
    start, length = start[:, None, None], length[:, None, None]
    step = length / out_size
    pixel = torch.arange(size, device=start.device)
    centre = start + (torch.arange(out_size, device=start.device)[:, None] + 0.5) * step
    distance = (pixel + 0.5 - centre).abs_().div_(step.clamp(min=1))
    weights = _cubic(distance) if interpolation == "bicubic" else (1 - distance).clamp_(min=0)
    weights.mul_((pixel >= start) & (pixel < start + length))
    return weights.div_(weights.sum(2, keepdim=True))


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, for x >= 0."""
    near = (1.5 * x).sub_(2.5).mul_(x).mul_(x).add_(1)
    far = (-0.5 * x).add_(2.5).mul_(x).sub_(4).mul_(x).add_(2).mul_(x < 2)
    return torch.where(x < 1, near, far)


def random_crop_flip(
    images: Tensor,
    padding: int = 4,
    *,
    generator: torch.Generator,
    hflip: float = 0.5,
    rank: int = 0,
    world: int = 1,
) -> Tensor:
    """Reflect-pad by ``padding``, crop back to (H, W), flip: (B,C,H,W) -> the same shape and type.

    ``rank`` and ``world`` as of :func:`random_resized_crop`.
    """
    count, channels, height, width = images.shape
    mine, drawn = slice(rank * count, (rank + 1) * count), (2, count * world, 1)
    shift = torch.randint(-padding, padding + 1, drawn, generator=generator, device=generator.device)[:, mine]
    flip = random_flips(count * world, hflip, generator)[mine]
    shift, flip = onto(shift, images.device), onto(flip, images.device)
    rows = _reflect(torch.arange(height, device=images.device) + shift[0], height)
    columns = _reflect(torch.arange(width, device=images.device) + shift[1], width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    flat = images.reshape(count, channels, height * width)
    return flat.gather(2, pixels.expand(-1, channels, -1)).view_as(images)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside 0 .. size-1 mirrored at the border pixels."""
    position = position.abs()
    return torch.minimum(position, 2 * (size - 1) - position)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(..., C, H, W): (x - mean) / std per channel, of uint8 or of float in 0..1; one mean turns RGB into grey."""
    mine = not images.is_floating_point()  # then no memory but that of the result is needed
    if mine:
        images = images.to(torch.float32).div_(255)
    if len(mean) == 1 and images.shape[-3] == 3:
        luma = onto(torch.tensor(LUMA, dtype=images.dtype), images.device)
        images = (images * luma[:, None, None]).sum(-3, keepdim=True)
    centre = onto(torch.tensor(mean, dtype=images.dtype), images.device)[:, None, None]
    spread = onto(torch.tensor(std, dtype=images.dtype), images.device)[:, None, None]
    return (images.sub_(centre) if mine else images - centre).div_(spread)


def onto(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on ``device``; a GPU goes on meanwhile, for it is copied from pinned memory."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
