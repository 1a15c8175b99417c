"""timm's own random initialisation: what everybody has without a source. No switches."""

from __future__ import annotations

from torch import Tensor

from sweet.data import ImageSource
from sweet.models.device import own_draws
from sweet.models.mae import position_table
from sweet.models.names import our_names
from sweet.models.vit import materialised
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size


def initialise(
    source: StoredSource, size: Size, *, data: ImageSource | None = None, budget: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """A new timm model's weights, drawn by ``seed``; of the source only the shape of its images and heads is used.

    Where there is a table of positions it holds MAE's fixed sines, which carry no learned knowledge.
    """
    config = source.config.resized(size.depth, size.heads)
    with own_draws(seed):
        state = our_names({name: value.detach() for name, value in materialised(config).named_parameters()})
    return state | {name: position_table(config) for name in state if name == "pos_embed"}
