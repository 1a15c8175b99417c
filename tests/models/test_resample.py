"""A source at another image size computes what timm's own resized model does."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from sweet.convert.from_timm import from_model
from sweet.models.forward import encode, patchify
from sweet.models.mae import source_from_state
from sweet.models.resample import at_image_size
from sweet.storage.folders import source_tensors

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2, "img_size": 64, "num_classes": 0}


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("size", [96, (48, 80)])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("vit_base_patch16_224", {}),
        ("vit_base_patch16_224", {"reg_tokens": 2, "class_token": False, "global_pool": "avg"}),
        ("beit_base_patch16_224", {}),
        ("vit_small_patch16_rope_mixed_ape_224", {}),
        ("vit_small_patch16_dinov3", {}),
    ],
)
def test_positions_are_resampled_as_timm_does(architecture: str, options: dict[str, Any], size: Any) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(architecture, pretrained=False, **SMALL, **options).eval()
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            if "position" in name or "pos_embed" in name or "token" in name:
                value.normal_()
    found = from_model(theirs, architecture, "0")
    source = source_from_state(found.state, found.config)
    seen = at_image_size(source, found.config, size)
    theirs.set_input_size(size)
    pixels = torch.randn(2, 3, *theirs.patch_embed.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = encode(source_tensors(seen.source), patchify(pixels, 16), seen.config)
        torch.testing.assert_close(ours, theirs.forward_features(pixels), rtol=1e-4, atol=1e-5)
    assert at_image_size(source, found.config, 64).source is source
