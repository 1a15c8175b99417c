"""Pictures of what a network finds in images, or makes: objects, classes of pixels, sheets of many; all as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from sweet.data import Picture, as_rgb
from sweet.files import replacing

from . import fonts

NARROW = 14  # characters of names that fit six in a row
NAME_SHOWN = 32  # characters of a name in a picture
LEGEND_SHOWN = 60  # classes
MOST_SLENDER = 4.0  # height to width of a row, or the other way round
CAPTION = 22  # pixels above a picture of a sheet
SIDE_DRAWN = 480  # pixels of a picture of a grid
SIDE_SHOWN = 640  # pixels of a picture of an image, at most
Pixels = NDArray[np.uint8]  # (H, W, 3), or (n, 3) colours


@contextmanager
def plain_text() -> Iterator[None]:
    """Drawing inside takes names as they are, in any script: matplotlib would read TeX between two dollar signs."""
    with matplotlib.rc_context({"text.parse_math": False, "font.family": [*fonts.families()]}):
        yield


def short(name: str) -> str:
    """A name as one short line for a picture; what cannot be drawn is written as an escape."""
    line = fonts.visible(name)
    return line if len(line) <= NAME_SHOWN else f"{line[: NAME_SHOWN - 1]}\u2026"


def for_a_picture(image: Picture, masks: Sequence[NDArray[Any]] = ()) -> tuple[Image.Image, list[NDArray[Any]]]:
    """An image as RGB with its maps (H, W), of a size that can be drawn: at most ``SIDE_SHOWN`` pixels a side."""
    shown = as_rgb(image)
    scale = min(1.0, SIDE_SHOWN / max(shown.size))
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    if size == shown.size:
        return shown, list(masks)
    resized = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in masks]
    return shown.resize(size), resized


def file_name(number: str, where: str) -> str:
    """Of the picture of an image: its number and the start of its own name, short enough for any file system."""
    stem = Path(where).stem.encode("utf-8", "surrogateescape")[:150].decode("utf-8", "ignore")
    return f"{number}-{stem}.png"


def palette(count: int) -> Pixels:
    """(count, 3) uint8: colours that differ as much as so many can."""
    name = "tab10" if count <= 10 else "tab20" if count <= 20 else "gist_rainbow"
    colours = matplotlib.colormaps[name]
    shares = np.arange(count) if count <= 20 else np.linspace(0, 1, count)
    return np.asarray(255 * colours(shares)[:, :3], dtype=np.uint8)


def overlay(image: Image.Image, classes: NDArray[np.uint8], colours: Pixels, strength: float = 0.6) -> Pixels:
    """(H, W, 3): the image under the colours of its pixels' classes; what has no class is dark."""
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(colours)] = colours
    pixels = (1 - strength) * np.asarray(image, dtype=np.float32) + strength * table[classes]
    return pixels.astype(np.uint8)


@plain_text()
def save_grid(
    file: Path,
    rows: Sequence[Sequence[Pixels]],
    titles: Sequence[str],
    legend: Sequence[tuple[str, Any]] = (),
) -> None:
    """Pictures (H, W, 3) uint8 in rows, a title over each column, and a legend of (name, colour as uint8).

    Each has ``SIDE_DRAWN`` pixels a side; of more than three in a row the words are larger beside them.
    """
    inches = min(4.0, 12 / len(titles))
    legend = legend[:LEGEND_SHOWN]
    columns = 6 if max((len(name) for name, _ in legend), default=0) <= NARROW else 3
    lines = -(-len(legend) // columns)
    shapes = [row[0].shape[:2] for row in rows]
    heights = [min(MOST_SLENDER, max(1 / MOST_SLENDER, height / width)) for height, width in shapes]
    size = (inches * len(titles), inches * sum(heights) + 0.3 + 0.25 * lines)
    figure = Figure(figsize=size, layout="constrained")
    for place, axes in zip(
        np.ndindex(len(rows), len(titles)),
        figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights).flat,
        strict=True,
    ):
        axes.imshow(rows[place[0]][place[1]])
        axes.set_axis_off()
        if place[0] == 0:
            axes.set_title(titles[place[1]], fontsize=9)
    if legend:
        patches = [
            Patch(color=tuple(channel / 255 for channel in colour), label=short(name)) for name, colour in legend
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=8)
    save_figure(figure, file, dpi=round(SIDE_DRAWN / inches))


def drawn(
    picture: Picture, boxes: Tensor, labels: Sequence[int], names: Sequence[str], masks: Tensor | None, side: int = 0
) -> Image.Image:
    """An RGB image with boxes (n, 4), their names, and masks (n, H, W) bool; ``side``: pixels of its long side."""
    image = as_rgb(picture)
    scale = side / max(image.size) if side else 1.0
    size = [max(1, round(edge * scale)) for edge in image.size]
    pixels = pil_to_tensor(image.resize((size[0], size[1])))
    colours = [tuple(map(int, palette(10)[label % 10])) for label in labels]  # all dark enough for a name
    if masks is not None and len(masks):
        resized = torch.nn.functional.interpolate(masks[None].float(), size=size[::-1])[0] > 0.5
        pixels = draw_segmentation_masks(pixels, resized, alpha=0.4, colors=colours)
    if len(boxes):
        # where two edges fall on one pixel, there is still something to see
        corners = (boxes * scale).round()
        corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
        pixels = draw_bounding_boxes(pixels, corners, colors=colours, width=max(1, max(size) // 200))
        shown = to_pil_image(pixels)
        _name_boxes(shown, corners.int().tolist(), [short(name) for name in names], colours)
        return shown
    return to_pil_image(pixels)


def _name_boxes(
    image: Image.Image, boxes: Sequence[Sequence[int]], names: Sequence[str], colours: Sequence[tuple[int, ...]]
) -> None:
    """Write each name on its box's colour, above the box where there is room, and not on another name."""
    draw, taken = ImageDraw.Draw(image), list[tuple[float, ...]]()
    size = min(28, max(11, max(image.size) // 26))
    for (left, top, *_), name, colour in zip(boxes, names, colours, strict=True):
        if not name:
            continue
        font = fonts.pillow_font(name, size)
        wide, high = draw.textlength(name, font) + 4, size + 3
        x = max(0, min(left, image.width - wide))
        y = top - high if top >= high else top
        while any(x < one[2] and x + wide > one[0] and y < one[3] and y + high > one[1] for one in taken):
            y += high
            if y + high > image.height:  # more names than fit
                break
        else:
            taken.append((x, y, x + wide, y + high))
            draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=colour)
            bright = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140
            draw.text((x + 2, y + high / 2), name, fill="black" if bright else "white", font=font, anchor="lm")


def sheet_of_pairs(
    pairs: Sequence[tuple[Image.Image, Image.Image]], captions: tuple[str, str], side: int
) -> Image.Image:
    """Pairs of images side by side, each image ``side`` pixels wide under its caption.

    Two pairs a row, where that leaves no place empty.
    """
    tiles, height = [], max(image.height for pair in pairs for image in pair)
    for pair in pairs:
        for image, caption in zip(pair, captions, strict=True):
            tile = Image.new("RGB", (side, height + CAPTION), "white")
            tile.paste(image, (0, CAPTION))
            font = fonts.pillow_font(caption, CAPTION - 7)
            ImageDraw.Draw(tile).text((2, CAPTION / 2), caption, fill="black", font=font, anchor="lm")
            tiles.append(pil_to_tensor(tile))
    across = 2 if len(pairs) % 2 else 4
    return to_pil_image(make_grid(torch.stack(tiles), nrow=across, padding=4, pad_value=255))


def save_png(image: Image.Image, path: Path) -> None:
    """Write an image as PNG; the file appears only once complete."""
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


@plain_text()
def contact_sheet(
    path: Path, images: Tensor, rows: Sequence[str], *, columns: Sequence[str] = (), title: str = "", side: int = 64
) -> None:
    """Write a PNG with images (rows * columns, C, H, W) uint8, row by row; ``rows`` and ``columns`` are their names.

    Every pixel is drawn as a whole number of pixels, so that an image is about ``side`` pixels high, or as it is.
    """
    gap, dpi = 2, 100
    if images.shape[1] not in (1, 3):  # more channels than can be seen
        images = images[:, : 3 if images.shape[1] > 3 else 1]
    rows, columns = ([short(name) for name in names] for names in (rows, columns))
    across, (height, width) = len(images) // len(rows), images.shape[-2:]
    grid = make_grid(images, nrow=across, padding=gap, pad_value=255).permute(1, 2, 0).numpy()
    zoom = max(1, round(side / height))
    left, top = 14 + 7 * max(map(fonts.width, rows)), 10 + 16 * bool(columns) + 20 * bool(title)
    total = (grid.shape[1] * zoom + left + 6, grid.shape[0] * zoom + top + 6)
    figure = Figure(figsize=(total[0] / dpi, total[1] / dpi), dpi=dpi)
    box = (left / total[0], 6 / total[1], grid.shape[1] * zoom / total[0], grid.shape[0] * zoom / total[1])
    axes = figure.add_axes(box)
    axes.imshow(grid, interpolation="nearest", aspect="auto")
    centres = [gap + height / 2 + row * (height + gap) for row in range(len(rows))]
    axes.set_yticks(centres, rows, fontsize=8)
    axes.set_xticks([gap + width / 2 + column * (width + gap) for column in range(len(columns))], columns, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=9, y=1 - 8 / total[1])
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path, dpi: float | None = None) -> None:
    """Write a matplotlib figure as PNG; the file appears only once complete. ``dpi`` None: the figure's own."""
    with replacing(path) as temporary, plain_text():
        figure.savefig(temporary, format="png", dpi=dpi or "figure")
