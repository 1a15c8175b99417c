"""Maps of a ViT for images of any size; windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sweet.models.config import ViTConfig
from sweet.models.vit import build_vit, materialised
from sweet.tasks.detection.features import Windows, feature_maps, global_blocks


def make_vit(family: str, depth: int = 3) -> Any:
    config = ViTConfig(depth=depth, heads=2, head_dim=8, img_size=32, patch_size=4, family=family)
    torch.manual_seed(0)
    weights = {name: 3 * value.detach() for name, value in materialised(config).named_parameters()}
    return build_vit(config, weights, dynamic_img_size=True)


@pytest.fixture(scope="module", params=["eva", "vit"])
def vit(request: pytest.FixtureRequest) -> Any:
    return make_vit(request.param)


@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_without_windows_they_are_timms(vit: Any, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        first, last = feature_maps(vit, images, [0, 2])
        theirs = vit.forward_intermediates(images, indices=[0, 2], norm=False, intermediates_only=True)
        (normed,) = vit.forward_intermediates(images, indices=[2], norm=True, intermediates_only=True)
    assert first.shape == (2, 16, size[0] // 4, size[1] // 4)
    torch.testing.assert_close(first, theirs[0])
    torch.testing.assert_close(last, normed)


def test_which_blocks_see_all() -> None:
    """Those of ViTDet's paper, and the last one at any depth."""
    assert [global_blocks(depth) for depth in (12, 6, 3)] == [[2, 5, 8, 11], [2, 5], [2]]
    assert global_blocks(4) == [0, 3] and global_blocks(1) == [0]


def test_a_cut_map_comes_together_again() -> None:
    for height, width, side in ((8, 8, 4), (7, 5, 3), (4, 9, 5)):
        windows = Windows(height, width, side)
        x = torch.randn(2, height * width, 3)
        cut = windows.cut(x)
        assert cut.shape == (2 * windows.rows * windows.columns, side * side, 3)
        assert torch.equal(windows.join(cut), x)
    first = Windows(4, 4, 2).cut(torch.arange(16.0).view(1, 16, 1))[0].flatten()
    assert first.tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("side", [8, 11])
def test_one_window_is_the_whole(vit: Any, side: int) -> None:
    """Also where the window reaches beyond the map: what fills it up is not attended to."""
    x = torch.randn(2, 1 + 8 * 6, 16)
    rope = vit.rope.get_embed(shape=(8, 6)) if getattr(vit, "rope", None) is not None else None
    with torch.no_grad():
        whole = vit.blocks[0](x) if rope is None else vit.blocks[0](x, rope=rope)
        torch.testing.assert_close(Windows(8, 6, side).through(vit.blocks[0], x, rope), whole)


def test_a_window_sees_itself_alone(vit: Any) -> None:
    """A block with windows of 4: of the 64 patches those in the window of a changed one change."""
    x = torch.randn(1, 65, 16)
    rope = vit.rope.get_embed(shape=(8, 8)) if getattr(vit, "rope", None) is not None else None
    other = x.clone()
    other[0, 1] = torch.randn(16)
    with torch.no_grad():
        a, b = (Windows(8, 8, 4).through(vit.blocks[0], one, rope) for one in (x, other))
    changed = ((a - b).abs().amax(2)[0, 1:] > 1e-6).view(8, 8)
    assert changed[:4, :4].all() and changed.sum() == 16


def test_positions_in_a_window_are_those_in_the_image() -> None:
    """RoPE: the windowed block equals the block on the window's tokens with the window's part of the table."""
    vit = make_vit("eva")
    x, rope = torch.randn(1, 65, 16), vit.rope.get_embed(shape=(8, 8))
    place = torch.arange(64).view(8, 8)[4:, :4].flatten()
    with torch.no_grad():
        windowed = Windows(8, 8, 4).through(vit.blocks[0], x, rope)[:, 1 + place]
        alone = vit.blocks[0](torch.cat([x[:, :1], x[:, 1 + place]], 1), rope=rope[place])[:, 1:]
    torch.testing.assert_close(windowed, alone)


def test_small_maps_have_no_windows(vit: Any) -> None:
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        (plain,), (small,), (cut,) = (feature_maps(vit, images, [2], window=side) for side in (0, 5, 4))
    assert torch.equal(plain, small)
    assert not torch.allclose(plain, cut)
