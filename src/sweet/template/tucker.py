"""Where slices come from: a Tucker core and three thin scalers (Eq. 5), or every slice for itself (`Full`).

    W = G x1 X x2 U x3 V        slice m = U (sum_a X[m, a] G_a) V^T,   m = 12 * layer + component

U (D, r2) is the residual side, V (D, r3) the inner side. Every class has two methods: ``at_layers``, itself with
some of its layers; and ``stacked``, the weights *before* U, so that whoever builds a network chooses what to do with
the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .sizes import SLICES, hidden_features
from .slices import FC2, PROJ, Units, combined, select_inner, unpack


@dataclass
class Tucker:
    """Core G (r1, r2, r3), scalers X (12 L, r1), U (D, r2), V (D, r3).

    At r2 = r3 = D the scalers U and V may be multiplied into the core, which grows by nothing (:meth:`contracted`);
    they are None then, and a network is one combination over r1. ``hidden`` is the number of hidden units and
    ``slices`` that of a block's slices, where somebody else's network has other numbers than ours.
    """

    core: Tensor
    x: Tensor
    u: Tensor | None = None
    v: Tensor | None = None
    hidden: int = 0
    slices: int = SLICES
    constraint: ClassVar[str] = "tucker"

    def tensors(self) -> dict[str, Tensor]:
        """What is stored: see :func:`sweet.template.constraints.core_of`."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def units(self, inner_width: int) -> Units | None:
        """Hidden units of all and of ``inner_width`` channels; None for the default numbers."""
        return (self.hidden, hidden_features(inner_width, "", self.hidden / self.width)) if self.hidden else None

    @property
    def depth(self) -> int:
        """Blocks L."""
        return self.x.shape[0] // self.slices

    @property
    def width(self) -> int:
        """Channels D."""
        return self.core.shape[1] if self.u is None else self.u.shape[0]

    def contracted(self) -> Tucker:
        """The same slices from a core (r1, D, D); itself when that would be larger."""
        if self.u is None or self.v is None or self.core.shape[1:] != (self.width, self.width):
            return self
        return replace(self, core=self.u @ self.core @ self.v.t(), u=None, v=None)

    def expanded(self) -> Tucker:
        """The same slices with U and V as tensors of their own again, so that they can be trained."""
        eye = torch.eye(self.width).to(self.core)
        return replace(self, u=eye if self.u is None else self.u, v=eye.clone() if self.v is None else self.v)

    def narrowed(self, width: int, inner_width: int) -> Tucker:
        """The first ``width`` channels of the stream of every slice, U in the core.

        Itself where U takes fewer products in each slice (of ``inner_width`` columns) than in the core, and where
        ``hidden`` is set: how many units a narrower inside has then follows from all channels.
        """
        if self.hidden:
            return self
        if self.u is None:
            return replace(self, core=self.core[:, :width])
        rank = self.core.shape[1]
        last = self.products(rank, inner_width) + len(self.x) * rank * width * inner_width
        if last <= self.products(width, inner_width) + self.core.numel() * width:
            return self
        return replace(self, core=self.u[:width] @ self.core, u=None)

    def products(self, residual: int, inner_width: int) -> int:
        """Multiplications of :meth:`stacked`, if the core has ``residual`` entries along the stream."""
        return min(self._x_first(residual, inner_width), self._v_first(residual, inner_width))

    def _x_first(self, residual: int, inner_width: int) -> int:
        (r1, _, r3), n = self.core.shape, len(self.x)
        return n * residual * (r1 * inner_width if self.v is None else r3 * (r1 + inner_width))

    def _v_first(self, residual: int, inner_width: int) -> int:
        (r1, _, r3), n = self.core.shape, len(self.x)
        return r1 * residual * inner_width * (n if self.v is None else n + r3)

    def at_layers(self, layers: Sequence[int]) -> Tucker:
        """The same core with the scalers X of some layers."""
        return replace(self, x=pick(self.x.unflatten(0, (-1, self.slices)), layers).flatten(0, 1))

    def stacked(self, inner_width: int, mlp: str) -> dict[str, Tensor]:
        """Stacked weights whose residual axis has r2 entries: sum_a X[m, a] G_a V[:d]^T, unpacked; d = ``inner_width``.

        X first when every slice has its own core matrix (r1 >= 12 L), V first when few are shared: fewer products.
        """
        units = self.units(inner_width)
        if units is not None and inner_width < self.width:  # hidden units do not lie along the slices
            return select_inner(self.stacked(self.width, mlp), self.width, inner_width, mlp, units)
        x, core, v = self.x, self.core, None if self.v is None else self.v[:inner_width]
        residual = core.shape[1]
        if v is not None and self._x_first(residual, inner_width) <= self._v_first(residual, inner_width):
            slices = (x @ core.flatten(1)).unflatten(1, core.shape[1:]) @ v.t()
            return unpack(slices.unflatten(0, (-1, self.slices)), mlp, self.hidden)
        core = core[:, :, :inner_width] if v is None else core @ v.t()
        if not self.hidden:
            return combined(x, core, mlp)
        slices = (x @ core.flatten(1)).unflatten(1, core.shape[1:])
        return unpack(slices.unflatten(0, (-1, self.slices)), mlp, self.hidden)


@dataclass
class Full:
    """No constraint: the stacked weights themselves, in the same role as a Tucker with U = I."""

    weights: dict[str, Tensor]
    u: ClassVar[None] = None
    constraint: ClassVar[str] = "none"

    def tensors(self) -> dict[str, Tensor]:
        """What is stored: the stacked weights."""
        return self.weights

    @property
    def depth(self) -> int:
        """Blocks L."""
        return self.weights[PROJ].shape[0]

    @property
    def width(self) -> int:
        """Channels D."""
        return self.weights[PROJ].shape[1]

    def at_layers(self, layers: Sequence[int]) -> Full:
        """The weights of some layers."""
        return Full({name: pick(weight, layers) for name, weight in self.weights.items()})

    def stacked(self, inner_width: int, mlp: str) -> dict[str, Tensor]:
        """The weights, first ``inner_width`` inner columns of every slice."""
        if inner_width == self.width:
            return self.weights
        hidden = self.weights[FC2].shape[2]
        units = None
        if hidden != hidden_features(self.width, mlp):
            units = hidden, hidden_features(inner_width, mlp, hidden / self.width)
        return select_inner(self.weights, self.width, inner_width, mlp, units)


def pick(rows: Tensor, layers: Sequence[int]) -> Tensor:
    """Entries of the first axis; no copy when all are taken in order."""
    return rows if list(layers) == list(range(len(rows))) else rows[list(layers)]


def init_tucker(
    depth: int,
    width: int,
    ranks: Sequence[int],
    *,
    std: float | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tucker:
    """Random Tucker whose every slice, at every width, has entries of standard deviation ``std``.

    The scalers have orthonormal columns times sqrt(rows / rank), so the core alone carries the scale and weight
    decay on it alone is Frobenius decay of W. ``std`` defaults to Xavier's 1 / sqrt(D). One for each of the twelve
    components (12,) goes into the rows of X, which are then of that length; the core keeps their root mean square.
    """
    r1, r2, r3 = ranks
    own = std if isinstance(std, Tensor) else None
    scale = width**-0.5 if std is None else float(std if own is None else own.square().mean().sqrt())
    core = torch.randn(r1, r2, r3, generator=generator) * scale
    x, u, v = (_orthonormal(rows, rank, generator) for rows, rank in ((SLICES * depth, r1), (width, r2), (width, r3)))
    if own is not None:
        x = x / x.norm(dim=1, keepdim=True) * (own / scale).repeat(depth)[:, None]
    return Tucker(core, x, u, v)


def _orthonormal(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q = torch.linalg.qr(tall).Q
    return (q * math.sqrt(rows / columns) if rows >= columns else q.t()).contiguous()
