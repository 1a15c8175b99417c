"""How the matrices of a block are cut into tiles (WAVE, arXiv 2406.17503), by arithmetic alone: no torch.

The stream axis is cut into D / w tiles of w channels. The inner axis is cut so that a prefix of tiles is a prefix slice
(``slices.inner_index``): q, k and v apart, gate and up apart, and a tile of the MLP holds some hidden units of *each*
of its eight slices (ceil(w / 3) with SwiGLU) or of each of its four groups (w with GELU). Where units do not fill the
last tile it is cropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Tiling:
    """Of one of a block's matrices: ``parts`` of it are tiled apart; a tile is ``channels`` x ``groups * units``."""

    channels: int
    parts: int
    groups: int
    units: int

    @property
    def size(self) -> int:
        """Numbers in one tile, and so in one template."""
        return self.channels * self.groups * self.units

    def count(self, width: int) -> int:
        """Tiles of one matrix of a block of ``width`` channels."""
        return self.parts * (width // self.channels) ** 2


def tilings(tile: int, mlp: str) -> tuple[Tiling, Tiling, Tiling, Tiling]:
    """Of qkv, proj, fc1 and fc2, for tiles of ``tile`` channels; ``mlp`` is ``swiglu`` or ``gelu``."""
    parts, groups, units = (2, 8, ceil(tile / 3)) if mlp == "swiglu" else (1, 4, tile)
    attention = (Tiling(tile, 3, 1, tile), Tiling(tile, 1, 1, tile))
    return *attention, Tiling(tile, parts, groups, units), Tiling(tile, 1, groups, units)


def template_counts(parameters: int, tile: int, mlp: str) -> tuple[int, int, int, int]:
    """Templates of qkv, proj, fc1 and fc2, at least one each, that have ``parameters`` numbers in all.

    Shared out in proportion to the sizes of the matrices, large templates first, so that small ones even out the
    rounding: the total misses ``parameters`` by at most half a tile of proj, unless one of each is more.

    >>> template_counts(144 * 448 * 448, 192, "swiglu")
    (196, 65, 131, 65)
    """
    each = tilings(tile, mlp)
    weight, counts = sum(tiling.parts * tiling.size for tiling in each), [0, 0, 0, 0]
    for index in (2, 3, 0, 1):
        tiling = each[index]
        counts[index] = max(1, round(parameters * tiling.parts / weight))
        parameters -= counts[index] * tiling.size
        weight -= tiling.parts * tiling.size
    qkv, proj, fc1, fc2 = counts
    return qkv, proj, fc1, fc2
