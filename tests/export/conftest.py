"""Model folders of any shape in which nothing is neutral: no bias is zero and no gain is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sweet.models.config import ViTConfig
from sweet.models.vit import skeleton
from sweet.storage.layout import write_folder
from sweet.storage.records import DataConfig, FolderRecord, InitRecord

WriteModel = Callable[..., Path]
ODD = ["$1_to_$2", "a|b<c>\n,\\", "\u05e9\u05dc\u05d5\u05dd", "\U0001f600 caf\u00e9", "n" * 300]


@pytest.fixture(scope="session")
def odd_names() -> list[str]:
    """Names of the first classes of every model: hard to draw, and to be found as they are in every file."""
    return [f"{name} {i}" for i, name in enumerate(ODD)]


@pytest.fixture(scope="session")
def write_model() -> WriteModel:
    """write_model(out, family, depth, heads, classes=0, **shape): a model folder of random weights."""

    def write(out: Path, family: str, depth: int, heads: int, classes: int = 0, **shape: int) -> Path:
        config = ViTConfig(
            depth=depth, heads=heads, family=family, **{"head_dim": 8, "img_size": 16, "patch_size": 4} | shape
        )
        generator = torch.Generator().manual_seed(depth + 10 * heads)
        weights = {}
        for name, parameter in skeleton(config, classes).named_parameters():
            gain = "norm" in name and name.endswith("weight")
            weights[name] = torch.randn(parameter.shape, generator=generator) * 0.2 + gain
        data = DataConfig(
            img_size=config.img_size,
            mean=tuple(0.1 * i for i in range(config.in_chans)),
            std=(0.3,) * config.in_chans,
            interpolation="bilinear",
            classes=[f"{ODD[i % len(ODD)]} {i}" for i in range(classes)] or None,
        )
        made = InitRecord(method="random", source_data="shapes:")
        record = FolderRecord(sweet="0", kind="model", vit=config, data=data, made=made)
        write_folder(out, ("model.safetensors", weights), record, "method: random\n", "card\n")
        return out

    return write
