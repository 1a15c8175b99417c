"""Which matrices are applied through U, x -> (x U) (C V^T), and not built: those that take fewer products so.

V is multiplied into the slices in either case: once a step, where it costs r3 for every number that it makes, and on
tokens it would cost 12 r3 D for each of them. U may go into the slices too, or stay apart and act on every token, once
for q, k and v and once for gate and up. A block of D channels then takes 16 r2 D products for a token instead of 12
D^2. Both give the same numbers; the choice is made for each matrix by the products of a step.
"""

from __future__ import annotations

from .slices import FC1, FC2, PROJ, QKV
from .tucker import Tucker


def left_apart(core: Tucker, tokens: int, width: int, inner: int, hidden: int, mlp: str) -> frozenset[str]:
    """The matrices (:data:`.slices.MATRICES`) whose U stays apart in a step of ``tokens`` tokens; none without a U.

    The network reads and writes ``width`` channels of the stream and has ``inner`` head channels and ``hidden`` units.
    """
    if core.u is None:
        return frozenset()
    rank, depth = core.core.shape[1], core.depth
    sides = {QKV: 3 * inner, PROJ: inner, FC1: (2 if mlp == "swiglu" else 1) * hidden, FC2: hidden}
    built = {name: tokens * width * side for name, side in sides.items()}
    own = {name: built[name] + width * rank * side for name, side in sides.items()}  # U goes into each slice
    apart = {name: tokens * rank * (width + side) for name, side in sides.items()}
    fewer = frozenset(name for name in sides if apart[name] < own[name])
    mixed = core.products(rank, inner) + depth * sum(min(apart[name], own[name]) for name in sides)
    contracted = core.products(width, inner) + core.core.numel() * width + depth * sum(built.values())
    return fewer if mixed < contracted else frozenset()
