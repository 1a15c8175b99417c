"""SWEET, direct: scalers sliced from the source, in principal order (methods 16) or as trained (the paper)."""

from __future__ import annotations

from torch import Tensor

from sweet.models.config import ViTConfig
from sweet.models.store import StoredSource
from sweet.template.target import target_weights


def initialise(
    source: StoredSource, config: ViTConfig, *, order: str = "principal", layers: str = "even", seed: int = 0
) -> dict[str, Tensor]:
    """Weights of any depth and width from a template or a dense source; see :func:`sweet.template.target_weights`."""
    return target_weights(source.source, config.depth, config.width, order=order, layers=layers, seed=seed)
