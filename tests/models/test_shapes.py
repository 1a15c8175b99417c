"""Shapes by formula are those of timm's own modules, in timm's order, wherever the formula speaks."""

from __future__ import annotations

from typing import Any

import pytest

from sweet.models.config import ViTConfig
from sweet.models.shapes import plain_shapes
from sweet.models.vit import encoder_shapes

KNOWN: list[dict[str, Any]] = [
    {},
    {"registers": 4},
    {"class_token": False, "final_norm": "pooled"},
    {"positions": "table", "final_norm": "none"},
    {"mlp": "gelu", "norm": "layer", "mlp_ratio": 3.0},
    {"rope": "none", "positions": "table", "mlp_ratio": 2.5},
    {"family": "vit"},
    {"family": "vit", "class_token": False, "final_norm": "pooled", "positions": "none"},
    {"family": "vit", "mlp": "swiglu", "norm": "rms", "mlp_ratio": 3.0, "final_norm": "none"},
    {"family": "vit", "registers": 2, "positions": "none", "in_chans": 5},
]


def config(**switches: Any) -> ViTConfig:
    return ViTConfig(**{"depth": 2, "heads": 3, "head_dim": 8, "img_size": 16, "patch_size": 4} | switches)


@pytest.mark.parametrize("switches", KNOWN, ids=str)
def test_the_formula_agrees_with_timm(switches: dict[str, Any]) -> None:
    known, timm = plain_shapes(config(**switches)), encoder_shapes(config(**switches))
    assert known is not None and list(known.items()) == [(name, tuple(shape)) for name, shape in timm.items()]


@pytest.mark.parametrize(
    "switches",
    [
        {"family": "beit"},
        {"rope": "dinov3"},
        {"head_dim": 6},
        {"qk_norm": True},
        {"pre_norm": True},
        {"family": "vit", "registers": 2},
    ],
    ids=str,
)
def test_it_says_so_where_only_timm_knows(switches: dict[str, Any]) -> None:
    assert plain_shapes(config(**switches)) is None
