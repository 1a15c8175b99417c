"""SWEET, direct (Algorithm 1): scalers sliced from the source, in principal order (methods 16) or as trained.

Switches: ``order`` principal (default) or prefix, the paper's slice; ``layers`` even (default) or first; ``gains`` of
the norms after slicing: auto (default: rms in principal order, none in prefix order), rms, sqrt or none.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.models.store import StoredSource
from sweet.template.sizes import Size
from sweet.template.target import target_weights


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    order: Literal["principal", "prefix"] = "principal",
    layers: Literal["even", "first"] = "even",
    gains: Literal["auto", "rms", "sqrt", "none"] = "auto",
) -> dict[str, Tensor]:
    """Weights of any depth and width from a template or a dense source; see :func:`sweet.template.target_weights`.

    ``seed`` draws the readers of channels that the source lacks. Raises UserError where no order was computed.
    """
    if order == "principal" and source.source.order is None:
        raise UserError("order=principal: this source has no principal order; use order=prefix")
    if order == "prefix" and gains == "rms":
        raise UserError("gains=rms: the kept energy is known in principal order only")
    rule = None if gains == "auto" else gains
    return target_weights(source.source, size.depth, size.width, order=order, layers=layers, gains=rule, seed=seed)
