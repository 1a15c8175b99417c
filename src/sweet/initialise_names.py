"""The registry of initialisers, apart from their code: ``sweet init --help`` must not import torch.

A line here and a file of the same name in ``initialise/`` are all that a new one needs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """What can be asked of an initialiser; whatever cannot is refused before it is called."""

    dense: bool = False  # it takes dense sources only
    grows: bool = True  # it makes sizes beyond the source
    images: int = 0  # unlabelled images it looks at when no budget is given; 0: none at all


NAMES: dict[str, Method] = {
    "sweet": Method(),
    "principal_slice": Method(dense=True),
    "weight_selection": Method(dense=True, grows=False),
    "isomorphic": Method(dense=True, grows=False, images=3200),
    "tleg": Method(dense=True),
    "mimetic": Method(),
    "random": Method(),
}
