"""The principal rotation on a dense source: the strongest baseline of a template that we know.

The same rotation, layer rules and growth as SWEET's, only the source is an unconstrained MAE (or any checkpoint
that was converted). Related: SliceGPT (Ashkboos et al., ICLR 2024, arXiv 2401.15024), which rotates each block apart.

Switches, as for ``sweet``: ``layers`` even (default) or first; ``gains`` rms (default) or equal; ``inner`` prefix
(default) or energy. The defaults are nothing but the rotation; SWEET's own are equal and energy.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sweet.data import ImageSource
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size

from . import sweet


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    layers: Literal["even", "first"] = "even",
    gains: Literal["rms", "equal"] = "rms",
    inner: Literal["energy", "prefix"] = "prefix",
) -> dict[str, Tensor]:
    """Weights of any depth and width; raises UserError where no order was computed."""
    return sweet.initialise(source, size, seed=seed, order="principal", layers=layers, gains=gains, inner=inner)
