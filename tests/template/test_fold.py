"""Folding changes no feature, and leaves nothing between the stream and the matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify
from sweet.storage.folders import StoredSource
from sweet.template.fold import folded
from sweet.template.source import Source
from sweet.template.target import target_weights
from sweet.template.tucker import Full

MakeSource = Callable[..., StoredSource]


def features(source: Source, config: ViTConfig) -> Tensor:
    images = torch.randn(2, 3, config.img_size, config.img_size, generator=torch.Generator().manual_seed(0))
    w = target_weights(source, source.depth, source.width, order="prefix", layers="first")
    return encode(w, patchify(images, config.patch_size), config)


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_a_folded_source_is_the_same_function(make_source: MakeSource, family: str) -> None:
    stored = make_source(family, "none")
    result = folded(stored.source)
    torch.testing.assert_close(
        features(result, stored.config), features(stored.source, stored.config), rtol=0, atol=2e-5
    )
    for norm in ("norm1", "norm2"):
        assert bool((result.blocks[f"{norm}.weight"] == 1).all())
        assert not result.blocks.get(f"{norm}.bias", torch.zeros(1)).any()
    if family == "vit":
        assert isinstance(result.core, Full)
        assert result.core.weights["attn.proj.weight"].mean(1).abs().max() < 1e-6
        assert result.core.weights["mlp.fc1.weight"].mean(2).abs().max() < 1e-6
        assert result.stem["pos_embed"].mean(-1).abs().max() < 1e-6
    assert bool((stored.source.blocks["norm1.weight"] != 1).any())  # the source itself is untouched


def test_a_template_is_refused(make_source: MakeSource) -> None:
    with pytest.raises(TypeError):
        folded(make_source().source)
