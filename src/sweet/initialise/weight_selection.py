"""Weight selection (Xu et al., "Initializing Models with Larger Ones", ICLR 2024), rule "consecutive".

The first channels, heads and hidden units of a dense source. The paper's uniform rule takes every s-th channel, which
mixes the channel pairs of rotary positions; consecutive keeps whole heads.
"""

from __future__ import annotations

from torch import Tensor

from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.store import StoredSource
from sweet.template.target import target_weights
from sweet.template.tucker import Full


def initialise(
    source: StoredSource, config: ViTConfig, *, order: str = "prefix", layers: str = "even", seed: int = 0
) -> dict[str, Tensor]:
    """Weights cut from a dense source; no rescaling. Raises UserError for a template or a size beyond the source."""
    if not isinstance(source.source.core, Full):
        raise UserError("--method weight_selection: needs a dense source (pretrain with template.constraint=none)")
    if config.depth > source.config.depth or config.heads > source.config.heads:
        raise UserError(
            f"--method weight_selection: {config.size} is larger than the source {source.config.size}; it only selects"
        )
    return target_weights(source.source, config.depth, config.width, order="prefix", layers=layers, seed=seed)
