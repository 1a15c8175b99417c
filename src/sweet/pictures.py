"""Many images on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweet.files import replacing

if TYPE_CHECKING:
    from torch import Tensor


def contact_sheet(
    path: Path, images: Tensor, rows: Sequence[str], *, columns: Sequence[str] = (), title: str = ""
) -> None:
    """Write a PNG with images (rows * columns, C, H, W) uint8, row by row; ``rows`` and ``columns`` are their names.

    Every pixel is drawn as a whole number of pixels.
    """
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    gap, dpi = 2, 100
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
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
        temporary.chmod(0o644)
