"""What the paper's Table 4 compares the Tucker product with: all weights from few numbers in other ways.

Each has the methods of ``tucker.py``. Both are special cases of Eq. 5 with U = V = I: ``Linear`` fixes X and
lets it depend on the depth, ``Kronecker`` has one small core for each kind of matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .sizes import hidden_features
from .slices import MATRICES, PROJ, WRITERS, select_inner
from .tiles import Tiling, template_counts, tilings
from .tucker import Full, Tucker, pick


@dataclass
class Linear:
    """W_l = base + (l / L) slope, l = 0 .. L - 1 (TLEG, arXiv 2312.05614): weights {name: (2, ...)}, base and slope.

    A network of another depth follows the rule with its own L, and so do the biases and norm parameters of the blocks:
    in a source with this core they are rows (2, ...) too.
    """

    weights: dict[str, Tensor]
    depth: int
    u: ClassVar[None] = None
    constraint: ClassVar[str] = "linear"

    def tensors(self) -> dict[str, Tensor]:
        """What is stored: see :func:`core_of`."""
        return self.weights

    @property
    def width(self) -> int:
        """Channels D."""
        return self.weights[PROJ].shape[1]

    def at_layers(self, layers: Sequence[int]) -> Full:
        """The weights of a network of ``len(layers)`` blocks; the numbers of the layers do not matter."""
        return Full({name: on_a_line(rows, len(layers)) for name, rows in self.weights.items()})

    def stacked(self, inner_width: int, mlp: str) -> dict[str, Tensor]:
        """Stacked weights of ``depth`` blocks, first ``inner_width`` inner columns of every slice."""
        return self.at_layers(range(self.depth)).stacked(inner_width, mlp)


@dataclass
class Kronecker:
    """Every tile of a weight is a weighted sum of templates (WAVE, arXiv 2406.17503), see ``tiles.py`` for the tiles.

    templates {name: (N, rows, columns)}, shared by all layers but not between the four kinds of matrices; scalers
    {name: (L, tile rows, tile columns, N)}. Up to a permutation W_l = sum_t S_(l,t) (x) T_t.
    """

    templates: dict[str, Tensor]
    scalers: dict[str, Tensor]
    u: ClassVar[None] = None
    constraint: ClassVar[str] = "kronecker"

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, ``templates.<matrix>`` and ``scalers.<matrix>``: see :func:`core_of`."""
        return {f"{field}.{name}": value for field, values in vars(self).items() for name, value in values.items()}

    @property
    def depth(self) -> int:
        """Blocks L."""
        return self.scalers[PROJ].shape[0]

    @property
    def tile(self) -> int:
        """Channels w of a tile."""
        return self.templates[PROJ].shape[1]

    @property
    def width(self) -> int:
        """Channels D."""
        return self.tile * self.scalers[PROJ].shape[1]

    def at_layers(self, layers: Sequence[int]) -> Kronecker:
        """The same templates with the scalers of some layers."""
        return replace(self, scalers={name: pick(rows, layers) for name, rows in self.scalers.items()})

    def stacked(self, inner_width: int, mlp: str) -> dict[str, Tensor]:
        """Stacked weights from the tiles that ``inner_width`` touches, cropped where it ends within one."""
        tiles = -(-inner_width // self.tile)
        covered = tiles * self.tile
        built = {
            name: self._built(name, tiling, tiles, covered, mlp)
            for name, tiling in zip(MATRICES, tilings(self.tile, mlp), strict=True)
        }
        return built if covered == inner_width else select_inner(built, covered, inner_width, mlp)

    def _built(self, name: str, tiling: Tiling, tiles: int, width: int, mlp: str) -> Tensor:
        """All layers of one matrix, ``tiles`` tiles on its inner side; below: n inner tiles, m tiles of the stream."""
        templates, scalers = self.templates[name], self.scalers[name]
        units = width if tiling.groups == 1 else hidden_features(width, mlp) // tiling.groups
        if name in WRITERS:
            w = (scalers[:, :, :tiles] @ templates.flatten(1)).unflatten(
                3, (tiling.channels, tiling.groups, tiling.units)
            )
            w = w.permute(0, 1, 3, 4, 2, 5).flatten(4)  # L m w group (n unit)
            return w[..., :units].flatten(3).flatten(1, 2)
        rows = scalers.unflatten(1, (tiling.parts, -1))[:, :, :tiles]
        w = (rows @ templates.flatten(1)).unflatten(4, (tiling.groups, tiling.units, tiling.channels))
        w = w.permute(0, 1, 4, 2, 5, 3, 6).flatten(5).flatten(3, 4)  # L part group (n unit) (m w)
        return w[:, :, :, :units].flatten(1, 3)


Core = Tucker | Full | Linear | Kronecker


def core_of(constraint: str, tensors: Mapping[str, Tensor], depth: int, hidden: int = 0) -> Core:
    """The core whose ``tensors()`` these are; ``depth`` is what a Linear core does not store, ``hidden`` what a Tucker
    does not.

    ``constraint`` is ``tucker``, ``kronecker``, ``linear`` or ``none``. Raises KeyError when a tensor is missing.
    """
    if constraint == "tucker":
        x = tensors["x"]
        return Tucker(tensors["core"], x, tensors.get("u"), tensors.get("v"), hidden, len(x) // depth)
    if constraint == "kronecker":
        return Kronecker(
            *({name: tensors[f"{field}.{name}"] for name in MATRICES} for field in ("templates", "scalers"))
        )
    weights = {name: tensors[name] for name in MATRICES}
    return Linear(weights, depth) if constraint == "linear" else Full(weights)


def on_a_line(rows: Tensor, depth: int) -> Tensor:
    """Base and slope (2, ...) -> rows (depth, ...), base + (l / depth) slope."""
    at = torch.arange(depth, dtype=rows.dtype, device=rows.device) / depth
    return rows[0] + at.view(-1, *[1] * (rows.dim() - 1)) * rows[1]


def init_kronecker(
    depth: int,
    width: int,
    tile: int,
    parameters: int,
    mlp: str,
    *,
    std: Mapping[str, float] | None = None,
    generator: torch.Generator | None = None,
) -> Kronecker:
    """Random tiles of which every entry of a weight has the standard deviation ``std`` of its name, by default
    1 / sqrt(D) as in ``init_tucker``.

    ``parameters`` is how many numbers the templates have in all, see :func:`sweet.template.tiles.template_counts`.
    """
    templates, scalers = {}, {}
    kinds = zip(MATRICES, tilings(tile, mlp), template_counts(parameters, tile, mlp), strict=True)
    for name, kind, count in kinds:
        inner, tiles = kind.groups * kind.units, width // tile
        shape = (tile, inner) if name in WRITERS else (inner, tile)
        scale = width**-0.5 if std is None else std[name]
        templates[name] = torch.randn(count, *shape, generator=generator) * scale
        drawn = torch.randn(depth, kind.parts * tiles, tiles, count, generator=generator)
        scalers[name] = drawn / drawn.norm(dim=3, keepdim=True)
    return Kronecker(templates, scalers)
