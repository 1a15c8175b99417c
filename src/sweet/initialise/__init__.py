"""Ways to initialise a ViT of a given size. One file each, one signature:

    initialise(source, config, *, order, layers, seed) -> state dict (timm's names, no head)

``source`` is a :class:`sweet.models.store.StoredSource`, ``config`` the target's :class:`ViTConfig`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sweet.initialise_names import NAMES

from . import random, sweet, weight_selection

Initialiser = Callable[..., dict[str, Tensor]]

METHODS: dict[str, Initialiser] = {
    "sweet": sweet.initialise,
    "weight_selection": weight_selection.initialise,
    "random": random.initialise,
}
assert tuple(METHODS) == NAMES

__all__ = ["METHODS", "NAMES", "Initialiser"]
