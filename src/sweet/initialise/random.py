"""timm's own random initialisation: what everybody has without a source."""

from __future__ import annotations

import torch
from torch import Tensor

from sweet.models.config import ViTConfig
from sweet.models.mae import sincos
from sweet.models.store import StoredSource
from sweet.models.vit import materialised


def initialise(
    source: StoredSource | None,
    config: ViTConfig,
    *,
    order: str = "prefix",
    layers: str = "even",
    seed: int = 0,
) -> dict[str, Tensor]:
    """A new timm model's weights, drawn by ``seed``; ``source``, ``order`` and ``layers`` are not used.

    The ``vit`` family keeps MAE's fixed sine positions, which carry no learned knowledge.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = {name: value.detach() for name, value in materialised(config).named_parameters()}
    if "pos_embed" in state:
        state["pos_embed"] = sincos(config.grid, config.width, nested=True)[None]
    return state
