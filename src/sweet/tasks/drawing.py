"""Objects drawn into their images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from sweet.files import replacing

Colour = tuple[int, int, int]


def drawn(
    image: Image.Image, boxes: Tensor, labels: Sequence[int], names: Sequence[str], masks: Tensor | None, side: int = 0
) -> Image.Image:
    """An RGB image with boxes (n, 4), what is in them, and masks (n, H, W) bool; the long side made ``side`` pixels."""
    scale = side / max(image.size) if side else 1.0
    size = [max(1, round(edge * scale)) for edge in image.size]
    pixels = pil_to_tensor(image.resize((size[0], size[1])))
    colours = [colour(label) for label in labels]
    if masks is not None and len(masks):
        resized = torch.nn.functional.interpolate(masks[None].float(), size=size[::-1])[0] > 0.5
        pixels = draw_segmentation_masks(pixels, resized, alpha=0.4, colors=colours)
    if len(boxes):
        # where two edges fall on one pixel, there is still something to see
        corners = (boxes * scale).round()
        corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
        pixels = draw_bounding_boxes(pixels, corners, list(names), colours, width=max(1, max(size) // 200))
    return to_pil_image(pixels)


def colour(label: int) -> Colour:
    """The colour of a class: twenty of them, then again."""
    red, green, blue = matplotlib.colormaps["tab20"].colors[(2 * label + label // 10) % 20]  # type: ignore[attr-defined]
    return round(255 * red), round(255 * green), round(255 * blue)


def sheet(pairs: Sequence[tuple[Image.Image, Image.Image]], captions: tuple[str, str], side: int) -> Image.Image:
    """Pairs of images side by side, two pairs a row, each image ``side`` pixels wide under its caption."""
    tiles, height = [], max(image.height for pair in pairs for image in pair)
    for pair in pairs:
        for image, caption in zip(pair, captions, strict=True):
            tile = Image.new("RGB", (side, height + 14), "white")
            tile.paste(image, (0, 14))
            ImageDraw.Draw(tile).text((2, 1), caption, fill="black")
            tiles.append(pil_to_tensor(tile))
    return to_pil_image(make_grid(torch.stack(tiles), nrow=min(4, len(tiles)), padding=4, pad_value=255))


def save_png(image: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
        temporary.chmod(0o644)
