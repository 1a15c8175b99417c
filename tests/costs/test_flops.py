"""Stated FLOPs are those that torch counts while the network runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sweet.costs.flops import mae_image_flops, pretraining_flops, rebuild_macs, template_cost
from sweet.models.mae import reconstruct, sincos
from sweet.models.vit import build_vit
from sweet.storage.folders import StoredSource
from sweet.template.sizes import cost, default_tile
from sweet.template.target import masked_weights, target_weights


@pytest.fixture(params=["eva", "vit"])
def stored(request: pytest.FixtureRequest, make_source: Callable[..., StoredSource]) -> StoredSource:
    return make_source(request.param)


def plain() -> AbstractContextManager[None]:
    """Attention by plain products: some versions of torch do not count the fused kernel for CPUs."""
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context


def test_mae_image_flops(stored: StoredSource) -> None:
    config, mae = stored.config, stored.mae
    w = target_weights(stored.source, 3, 24, order="prefix")
    images, noise = torch.randn(1, 3, 16, 16), torch.rand(1, 16)
    with FlopCounterMode(display=False) as counter, plain():
        reconstruct(w, images, noise, config, mae, sincos(config.grid, mae.decoder_width))
    assert mae_image_flops(config, mae) == mae_image_flops(config, mae, 3, 3, 3) == counter.get_total_flops()


def test_mae_image_flops_of_a_sub_network(stored: StoredSource) -> None:
    config, mae = stored.config, stored.mae
    w = target_weights(stored.source, 2, 8, inner_width=16, order="prefix")
    images, noise = torch.randn(1, 3, 16, 16), torch.rand(1, 16)
    with FlopCounterMode(display=False) as counter, plain():
        reconstruct(w, images, noise, config.resized(2, 3), mae, sincos(config.grid, mae.decoder_width))
    assert mae_image_flops(config, mae, 2, 1, 2) == counter.get_total_flops()


def test_mae_image_flops_of_masked_matrices(stored: StoredSource) -> None:
    """What is computed: dead rows and columns are not multiplied, the stream has all its channels."""
    config, mae = stored.config, stored.mae
    w = masked_weights(stored.source, 2, 8, 16)
    images, noise = torch.randn(1, 3, 16, 16), torch.rand(1, 16)
    with FlopCounterMode(display=False) as counter, plain():
        reconstruct(w, images, noise, config.resized(2, 3), mae, sincos(config.grid, mae.decoder_width))
    assert mae_image_flops(config, mae, 2, 1, 2, masked=True) == counter.get_total_flops()
    assert mae_image_flops(config, mae, 2, 1, 2, masked=True) > mae_image_flops(config, mae, 2, 1, 2)
    assert mae_image_flops(config, mae, masked=True) == mae_image_flops(config, mae)


def test_vit_flops(stored: StoredSource) -> None:
    config = stored.config
    model = build_vit(config, target_weights(stored.source, 3, 24, order="prefix"), num_classes=10)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain():
        model(torch.randn(1, 3, 16, 16))
    counted = cost(config.size, mlp=config.mlp, norm=config.norm, img_size=16, patch_size=4, num_classes=10)
    assert counted.flops(attention=True) == counter.get_total_flops()


@pytest.mark.parametrize("ranks", [(10, 20, 18), (36, 8, 12)], ids=["V first", "X first"])
def test_rebuild_macs(make_source: Callable[..., StoredSource], ranks: tuple[int, int, int]) -> None:
    """What a budget counts: U in every slice. In the core it takes fewer products where few slices are shared."""
    source = make_source("eva", ranks=ranks).source
    with FlopCounterMode(display=False) as counter:
        target_weights(source, 3, 24, order="prefix", layers="first")
    in_core = 24 * 10 * 20 * 18 + 24 * 10 * 24 * (18 + 36)  # U, V, then X
    spent = rebuild_macs(3, 24, ranks) if ranks[0] == 36 else in_core
    assert spent <= rebuild_macs(3, 24, ranks) and 2 * spent == counter.get_total_flops()


@pytest.mark.parametrize(("heads", "tile"), [(4, 8), (6, 24)])
def test_rebuild_macs_of_tiles(make_source: Callable[..., StoredSource], heads: int, tile: int) -> None:
    for family in ("eva", "vit"):
        stored = make_source(family, "kronecker", ranks=(30, 24, 24), heads=heads)
        with FlopCounterMode(display=False) as counter:
            target_weights(stored.source, 3, 8 * heads, order="prefix")
        counted = template_cost(stored.config, "kronecker", ranks=(30, 24, 24), tile=tile)
        assert 2 * counted.rebuild_macs == counter.get_total_flops()


def test_a_tile_is_three_heads_where_that_divides() -> None:
    assert [default_tile(heads, 64) for heads in (12, 3, 4, 2)] == [192, 192, 64, 64]


def test_pretraining_is_three_forwards(stored: StoredSource) -> None:
    image, rebuild = mae_image_flops(stored.config, stored.mae), rebuild_macs(3, 24, (10, 20, 18))
    dense = pretraining_flops(image, images=64, steps=2, rebuild=0)
    assert dense == 3 * 64 * image
    assert pretraining_flops(image, images=64, steps=2, rebuild=rebuild) == dense + 12 * rebuild
