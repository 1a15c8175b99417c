"""Rows of the tables: initialisers with their switches, and the sources that they start from. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One row of a table: an initialiser, how it is called, and which source it starts from."""

    method: str
    source: str | None = None  # a key of Protocol.sources
    switches: Mapping[str, Any] = field(default_factory=dict)  # a table has one rule for layers, unless an arm says so
    lr: float | None = None  # of fine-tuning, where a sweep of the method found another than the table's
    layer_decay: float | None = None  # likewise


@dataclass(frozen=True)
class Converted:
    """A template made from another source by ``sweet convert``; without ranks nothing is lost."""

    of: str
    ranks: tuple[int, int, int] | None = None
    metric: str = "activations"
    heal: int = 0  # steps


@dataclass(frozen=True)
class Rotated:
    """A dense source as it is, but stored in its own principal order, gains folded."""

    of: str


Recipe = list[str] | Converted | Rotated

# Overrides of a table's recipe (``init_from=@NAME`` goes on from another of these), or made of another without
# images. Only sources of
# arms that are asked for are learned.
SOURCES: dict[str, Recipe] = {
    "template": [],
    "dense": ["template.constraint=none"],
    "linear": ["template.constraint=linear"],
    "kronecker": ["template.constraint=kronecker"],
    "converted": Converted("dense"),
}

ARMS = {
    "random": Arm("random"),
    "random_rms": Arm("random", None, {"rms": 0.07}),  # timm's weights are small for a short budget (docs/log.md)
    "mimetic": Arm("mimetic"),
    "weight_selection": Arm("weight_selection", "dense", {"rule": "consecutive"}),
    "weight_selection_uniform": Arm("weight_selection", "dense", {"rule": "uniform"}),
    "weight_selection_heads": Arm("weight_selection", "dense", {"rule": "whole_heads"}),
    "isomorphic": Arm("isomorphic", "dense"),
    "tleg": Arm("tleg", "dense"),
    "tleg_trained": Arm("tleg", "linear"),
    "wave": Arm("wave", "kronecker"),
    "dmae": Arm("dmae", "dense"),
    "principal_slice": Arm("principal_slice", "dense"),
    "sweet_converted": Arm("sweet", "converted"),
    "sweet_prefix": Arm("sweet", "template", {"order": "prefix"}),
    "sweet": Arm("sweet", "template", {"order": "principal"}),
    "sweet_fitted": Arm("sweet_fitted", "template"),
}


def arms(*names: str) -> dict[str, Arm]:
    return {name: ARMS[name] for name in names}
