"""Images that are not square: the same numbers as timm's modules, for every sort of positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sweet.api import Template
from sweet.costs.flops import mae_image_flops
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify, unpatchify
from sweet.models.mae import reconstruct, sincos
from sweet.models.names import our_names
from sweet.models.vit import build_vit, materialised, skeleton
from sweet.template.target import target_weights

MakeSource = Callable[..., Template]
SORTS: list[dict[str, Any]] = [
    {"family": "eva"},
    {"family": "vit"},
    {"family": "beit", "final_norm": "pooled"},
    {"family": "eva", "rope": "mixed", "rope_layout": "interleaved", "norm": "layer"},
    {"family": "eva", "rope": "dinov3", "positions": "table", "registers": 2},
    {"family": "eva", "rope_grid": (3, 5), "rope_indexing": "xy"},
]


def images(size: tuple[int, int], count: int = 2) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(5))


def noisy(model: nn.Module) -> dict[str, Tensor]:
    """Random weights under our names, in which no bias is zero."""
    generator = torch.Generator().manual_seed(1)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    return our_names({n: v + 0.1 * torch.randn(v.shape, generator=generator) for n, v in weights.items()})


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 24), (20, 8)])
@pytest.mark.parametrize("switches", SORTS, ids=str)
def test_encode_is_timms_forward_features(switches: dict[str, Any], size: tuple[int, int]) -> None:
    config = ViTConfig(2, 2, 8, size, 4, **switches)
    weights = noisy(materialised(config))
    expected = build_vit(config, weights).forward_features(images(size))
    found = encode(weights, patchify(images(size), 4), config)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    parts = config.cost().parameters(positions=config.positions == "table")
    assert parts == sum(value.numel() for value in skeleton(config).parameters())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resampling of relative positions
@pytest.mark.parametrize("switches", SORTS[:4], ids=str)
def test_a_square_model_becomes_another_as_timm_makes_it(switches: dict[str, Any]) -> None:
    square = ViTConfig(2, 2, 8, 16, 4, **switches)
    weights = noisy(materialised(square))
    reference = build_vit(square, weights)
    reference.set_input_size(img_size=(16, 24))
    wide = build_vit(square, weights, img_size=(16, 24))
    torch.testing.assert_close(wide(images((16, 24))), reference(images((16, 24))))
    again = replace(square, img_size=(16, 24))
    rebuilt = build_vit(again, {name: value.detach() for name, value in wide.named_parameters()})
    torch.testing.assert_close(rebuilt(images((16, 24))), wide(images((16, 24))))


@torch.no_grad()
def test_rotary_positions_are_scaled_along_each_side() -> None:
    """As in timm's own constructor, with the grid of pre-training as the reference."""
    square = ViTConfig(2, 2, 8, 16, 4)
    weights = noisy(materialised(square))
    wide = build_vit(square, weights, img_size=(8, 24))
    shape = {"img_size": (8, 24), "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 0}
    rope = {"use_abs_pos_emb": False, "rope_temperature": 100.0, "ref_feat_shape": (4, 4), "rope_rotate_half": True}
    theirs = Eva(**shape, **rope, use_rot_pos_emb=True)  # type: ignore[arg-type]
    torch.testing.assert_close(wide.rope.get_embed(), theirs.rope.get_embed())


def test_sine_positions_of_a_part_are_a_part_of_the_positions() -> None:
    whole = sincos(4, 12)[1:].view(4, 4, 12)
    torch.testing.assert_close(sincos((2, 3), 12)[1:].view(2, 3, 12), whole[:2, :3])
    torch.testing.assert_close(sincos((4, 1), 12)[1:].view(4, 1, 12), whole[:, :1])


@pytest.mark.parametrize("size", [(8, 20), (24, 4), (12, 12)])
def test_unpatchify_undoes_patchify(size: tuple[int, int]) -> None:
    grid = (size[0] // 4, size[1] // 4)
    assert unpatchify(patchify(images(size), 4), 4, 3, grid).equal(images(size))


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_the_autoencoder_and_what_it_costs(make_source: MakeSource, family: str) -> None:
    stored = make_source(family, img_size=(8, 24))
    config, mae = stored.config, stored.mae
    weights = target_weights(stored.source, 3, 24, order="prefix")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        seen = reconstruct(
            weights, images((8, 24), 1), torch.rand(1, 12), config, mae, sincos(config.grid, mae.decoder_width)
        )
    assert seen.masked.shape == (1, 9) and bool(seen.loss.isfinite())
    assert mae_image_flops(config, mae) == counter.get_total_flops()


def test_config_goes_through_json() -> None:
    wide = ViTConfig(2, 2, 8, (16, 24), 4)
    assert wide.grid == (4, 6) and wide.patches == 24 and wide.rope_grid == (4, 6)
    assert ViTConfig(**wide.to_dict()) == wide
    square = ViTConfig(2, 2, 8, [16, 16], 4)  # type: ignore[arg-type]  # as JSON has it
    assert square == ViTConfig(2, 2, 8, 16, 4) and square.to_dict()["img_size"] == 16
    for size in ((16, 18), (0, 16), (16, 16, 3)):
        with pytest.raises(ValueError, match=r"img_size|image size 16x18 is not a multiple of patch size 4"):
            ViTConfig(2, 2, 8, size, 4)  # type: ignore[arg-type]
