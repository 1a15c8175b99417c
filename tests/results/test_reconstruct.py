"""The sheet of reconstructions, and which sizes it shows."""

from __future__ import annotations

import torch

from sweet.results.render.reconstruct import sheet, sizes_shown
from sweet.template.sizes import Size


def test_sheet() -> None:
    black, white = (torch.full((2, 3, 32, 32), value, dtype=torch.uint8) for value in (0, 255))
    made = sheet([black, white])
    assert (made.size, made.getpixel((0, 0)), made.getpixel((383, 383))) == ((384, 384), (0, 0, 0), (255, 255, 255))


def test_sizes() -> None:
    assert [str(size) for size in sizes_shown(Size(12, 12, 16))] == ["L12H12", "L12H6", "L6H12", "L6H6", "L3H3"]
    assert [str(size) for size in sizes_shown(Size(1, 1, 16))] == ["L1H1"]
