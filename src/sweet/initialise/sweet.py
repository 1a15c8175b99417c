"""SWEET, direct (Algorithm 1): scalers sliced from the source, in principal order or as trained.

Switches: ``order`` principal (default) or prefix, the paper's slice; ``layers`` first, even, or best (default: the
first ones of somebody else's checkpoint, evenly spaced ones of a source that was learned here); ``gains`` of the norms
after slicing: best (default: equal in principal order; in prefix order none, or sqrt where the source was trained with
masks on its matrices alone, Eq. 7-8), equal (rms, then equal gains of all channels, :mod:`sweet.template.gains`), rms,
sqrt (times sqrt(D / d)) or none; ``inner``, which heads and hidden units a narrower target takes in principal order:
energy (default), those of the highest energy, or prefix, as always in prefix order.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.storage.folders import StoredSource
from sweet.template.gains import equalise_gains, principal_energy
from sweet.template.sizes import Size
from sweet.template.source import at_depth
from sweet.template.target import target_weights


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    order: Literal["principal", "prefix"] = "principal",
    layers: Literal["best", "even", "first"] = "best",
    gains: Literal["best", "equal", "rms", "sqrt", "none"] = "best",
    inner: Literal["energy", "prefix"] = "energy",
) -> dict[str, Tensor]:
    """Weights of any depth and width from any source, see :func:`sweet.template.target.target_weights`.

    ``seed`` draws the readers of channels that the source lacks. Raises UserError where no order was computed.
    """
    if order == "principal" and source.source.order is None:
        raise UserError("order=principal: this source has no principal order; use order=prefix")
    if order == "prefix" and gains in ("equal", "rms"):
        raise UserError(f"gains={gains}: energies are known in principal order only")
    layers = best_layers(source) if layers == "best" else layers
    rule = best_gains(source, order) if gains == "best" else gains
    plain = "rms" if rule == "equal" else rule
    weights = target_weights(
        source.source if order == "principal" else source.as_trained,
        size.depth,
        size.width,
        order=order,
        layers=layers,
        gains=plain,
        inner=inner,
        seed=seed,
    )
    return with_equal_gains(weights, source, size, layers) if rule == "equal" else weights


def best_layers(source: StoredSource) -> Literal["even", "first"]:
    """The layers that a shallower target takes by default (docs/log.md).

    Of a network that was trained for long the first ones, by far; of the short trainings that we have measured
    sometimes these and sometimes evenly spaced ones.
    """
    return "first" if source.record.of_others else "even"


def best_gains(source: StoredSource, order: str) -> str:
    """The gains that an order takes by default (docs/log.md).

    Where only the matrices were masked, every norm divided by the root mean square of all D channels, also when the
    blocks read d of them: a slice divides by that of d.
    """
    if order == "principal":
        return "equal"
    width = source.record.width
    return "sqrt" if width is not None and width.mode != "none" and width.apply == "mask" else "none"


def with_equal_gains(weights: dict[str, Tensor], source: StoredSource, size: Size, layers: str) -> dict[str, Tensor]:
    """The weights of a target in principal order with :func:`sweet.template.gains.equalise_gains`."""
    known = at_depth(source.source, size.depth, layers)
    assert known.order is not None
    energy = principal_energy(known.order, size.width, centred=known.norm == "layer")
    return equalise_gains(weights, energy, in_place=source.own(weights))
