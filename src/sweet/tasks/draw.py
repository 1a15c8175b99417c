"""Pictures of what a network sees in images: colours, overlays, legends, written as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from sweet.files import replacing

Picture = NDArray[np.uint8]


def palette(count: int) -> Picture:
    """(count, 3) uint8: colours that differ as much as so many can."""
    name = "tab10" if count <= 10 else "tab20" if count <= 20 else "gist_rainbow"
    colours = matplotlib.colormaps[name]
    shares = np.arange(count) if count <= 20 else np.linspace(0, 1, count)
    return np.asarray(255 * colours(shares)[:, :3], dtype=np.uint8)


def overlay(image: Image.Image, classes: NDArray[np.uint8], colours: Picture, strength: float = 0.6) -> Picture:
    """(H, W, 3): the image under the colours of its pixels' classes; what has no class is dark."""
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(colours)] = colours
    pixels = (1 - strength) * np.asarray(image, dtype=np.float32) + strength * table[classes]
    return pixels.astype(np.uint8)


def save_grid(
    file: Path,
    rows: Sequence[Sequence[Picture]],
    titles: Sequence[str],
    legend: Sequence[tuple[str, Any]] = (),
) -> None:
    """Pictures (H, W, 3) uint8 in rows, a title over each column, and a legend of (name, colour as uint8)."""
    height, width = rows[0][0].shape[:2]
    lines = -(-len(legend) // 6)
    size = (4 * len(titles), 4 * len(rows) * height / width + 0.3 + 0.25 * lines)
    figure = Figure(figsize=size, layout="constrained")
    for place, axes in zip(
        np.ndindex(len(rows), len(titles)), figure.subplots(len(rows), len(titles), squeeze=False).flat, strict=True
    ):
        axes.imshow(rows[place[0]][place[1]])
        axes.set_axis_off()
        if place[0] == 0:
            axes.set_title(titles[place[1]], fontsize=9)
    if legend:
        patches = [Patch(color=tuple(value / 255 for value in colour), label=name) for name, colour in legend]
        figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
        temporary.chmod(0o644)
