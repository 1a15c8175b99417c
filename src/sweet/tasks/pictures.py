"""Pictures of what a network finds in images, or makes: objects, classes of pixels, sheets of many; all as PNG."""

from __future__ import annotations

import warnings
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

NARROW = 14  # characters of names that fit six in a row
NAME_SHOWN = 32  # characters of a name in a picture
LEGEND_SHOWN = 60  # classes
MOST_SLENDER = 4.0  # height to width of a row, or the other way round
SIDE_SHOWN = 640  # pixels of a picture of an image, at most
Pixels = NDArray[np.uint8]  # (H, W, 3), or (n, 3) colours


@contextmanager
def plain_text() -> Iterator[None]:
    """Drawing inside takes names as they are: matplotlib would read TeX between two dollar signs."""
    with matplotlib.rc_context({"text.parse_math": False}):
        yield


def short(name: str) -> str:
    """A name as one short line for a picture; what cannot be seen is written as an escape."""
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)
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
    """Pictures (H, W, 3) uint8 in rows, a title over each column, and a legend of (name, colour as uint8)."""
    legend = legend[:LEGEND_SHOWN]
    columns = 6 if max((len(name) for name, _ in legend), default=0) <= NARROW else 3
    lines = -(-len(legend) // columns)
    shapes = [row[0].shape[:2] for row in rows]
    heights = [min(MOST_SLENDER, max(1 / MOST_SLENDER, height / width)) for height, width in shapes]
    size = (4 * len(titles), 4 * sum(heights) + 0.3 + 0.25 * lines)
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
    save_figure(figure, file, dpi=120)


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
        pixels = draw_bounding_boxes(pixels, corners, list(map(short, names)), colours, width=max(1, max(size) // 200))
    return to_pil_image(pixels)


def sheet_of_pairs(
    pairs: Sequence[tuple[Image.Image, Image.Image]], captions: tuple[str, str], side: int
) -> Image.Image:
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
    """Write an image as PNG; the file appears only once complete."""
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
        temporary.chmod(0o644)


@plain_text()
def contact_sheet(
    path: Path, images: Tensor, rows: Sequence[str], *, columns: Sequence[str] = (), title: str = ""
) -> None:
    """Write a PNG with images (rows * columns, C, H, W) uint8, row by row; ``rows`` and ``columns`` are their names.

    Every pixel is drawn as a whole number of pixels.
    """
    gap, dpi = 2, 100
    if images.shape[1] not in (1, 3):  # more channels than can be seen
        images = images[:, : 3 if images.shape[1] > 3 else 1]
    rows, columns = ([short(name) for name in names] for names in (rows, columns))
    across, (height, width) = len(images) // len(rows), images.shape[-2:]
    grid = make_grid(images, nrow=across, padding=gap, pad_value=255).permute(1, 2, 0).numpy()
    zoom = max(1, round(64 / height))
    left, top = 14 + 7 * max(map(len, rows)), 10 + 16 * bool(columns) + 20 * bool(title)
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
    with replacing(path) as temporary, plain_text(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        figure.savefig(temporary, format="png", dpi=dpi or "figure")
        temporary.chmod(0o644)
