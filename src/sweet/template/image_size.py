"""How large an image is in pixels: one number for a square, or (height, width). Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_SIDE = 16384  # pixels; more is a slip or damage
ImageSize = int | tuple[int, int]
"""A square is always one number, so that equal sizes are equal values. Also for a grid of patches."""


def sides(size: ImageSize) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else size


def joined(height: int, width: int) -> ImageSize:
    """Inverse of :func:`sides`."""
    return height if height == width else (height, width)


def size_text(size: ImageSize) -> str:
    """``96``, or ``96x160`` for height times width."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def read_image_size(value: object) -> ImageSize:
    """A size from a whole number, a list [height, width], or a text such as ``96`` or ``96x160``.

    Raises ValueError for anything else, and for a side that is not from 1 to :data:`MAX_SIDE`.
    """
    given: Sequence[object] = list(value) if isinstance(value, list | tuple) else [value]
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}(x\d{1,9})?", value):
        given = [int(side) for side in value.split("x")]
    edges = [edge for edge in given if type(edge) is int and 1 <= edge <= MAX_SIDE]
    if edges != given or len(edges) not in (1, 2):
        shown = value if isinstance(value, str) else repr(value)
        raise ValueError(f"should be pixels from 1 to {MAX_SIDE}, or height and width, got {shown}")
    return joined(edges[0], edges[-1])


def whole_patches(size: ImageSize, patch: int) -> bool:
    """Whether the image is cut into patches of ``patch`` pixels without a rest."""
    return all(side % patch == 0 for side in sides(size))
