"""The decoder: which blocks it reads, any image size, no image sees another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sweet.models.vit import build_vit, materialised
from sweet.tasks.segmentation.upernet import Segmenter, finest, group_norm, level_blocks

OPTIONS: dict[str, Any] = {"channels": 32, "pool_scales": [1, 2], "dropout": 0.1, "aux_channels": 16, "upsample": 4}


@pytest.fixture(params=["eva", "vit"])
def segmenter(request: pytest.FixtureRequest, make_source: Any) -> Segmenter:
    config = make_source(request.param).config
    torch.manual_seed(0)
    weights = {name: value.detach() for name, value in materialised(config).named_parameters()}
    vit = build_vit(config, weights, dynamic_img_size=True, dynamic_img_pad=True)
    return Segmenter(vit, 5, **OPTIONS).eval()


def test_levels_by_depth() -> None:
    """Those of 12, 6 and 3 blocks."""
    named = {12: [3, 5, 7, 11], 6: [1, 2, 3, 5], 3: [0, 1, 1, 2], 2: [0, 0, 0, 1], 1: [0, 0, 0, 0]}
    assert {depth: level_blocks(depth) for depth in named} == named
    for depth in range(1, 40):
        assert level_blocks(depth)[-1] == depth - 1


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 8), (17, 30), (4, 4), (3, 50)])
def test_any_image_size(segmenter: Segmenter, height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width)
    assert segmenter(images).shape == (2, 5, height, width)
    logits, auxiliary = segmenter.train()(images)
    assert logits.shape == auxiliary.shape == (2, 5, height, width)


def test_the_levels_are_the_vits_blocks(segmenter: Segmenter) -> None:
    """Three blocks: 0, 1, 1, 2, each under the final norm, at four sizes."""
    images, seen = torch.randn(1, 3, 16, 16), []
    for change in segmenter.rescale:
        change.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    segmenter.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        segmenter(images)
        maps = segmenter.vit.forward_intermediates(images, indices=[0, 1, 2], norm=True, intermediates_only=True)
        last = segmenter.vit.forward_features(images)[:, 1:].mT.view(1, -1, 4, 4)
    *inputs, levels = seen
    for level, block in zip(inputs, (0, 1, 1, 2), strict=True):
        torch.testing.assert_close(level, maps[block])
    torch.testing.assert_close(inputs[3], last)
    assert [level.shape[-1] for level in levels] == [16, 8, 4, 2]


@pytest.mark.parametrize(("upsample", "sides"), [(4, [16, 8, 4, 2]), (2, [8, 8, 4, 2]), (1, [4, 4, 4, 2])])
def test_how_fine_the_levels_are(segmenter: Segmenter, upsample: int, sides: list[int]) -> None:
    other, seen = Segmenter(segmenter.vit, 5, **(OPTIONS | {"upsample": upsample})).eval(), []
    other.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert other(torch.randn(2, 3, 16, 16)).shape == (2, 5, 16, 16)
    assert [level.shape[-1] for level in seen[0]] == sides


def test_no_map_is_finer_than_two_pixels() -> None:
    assert {patch: finest(patch) for patch in (1, 2, 4, 7, 8, 14, 16, 32)} == {
        **dict.fromkeys((1, 2), 1),
        **dict.fromkeys((4, 7), 2),
        **dict.fromkeys((8, 14, 16, 32), 4),
    }


def test_images_of_a_batch_do_not_see_each_other(segmenter: Segmenter) -> None:
    images = torch.randn(3, 3, 16, 16)
    segmenter.eval()
    with torch.no_grad():
        torch.testing.assert_close(segmenter(images)[1:2], segmenter(images[1:2]), rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(segmenter: Segmenter) -> None:
    """Else processes that share the work would wait for its gradient."""
    logits, auxiliary = segmenter.train()(torch.randn(2, 3, 16, 16))
    (logits.square().sum() + auxiliary.square().sum()).backward()
    idle = [name for name, p in segmenter.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # keys have no bias that matters: it moves all scores of a query alike
    assert [name for name in idle if "k_proj.bias" not in name] == []


def test_without_an_auxiliary_head(segmenter: Segmenter) -> None:
    bare = Segmenter(segmenter.vit, 5, channels=16, pool_scales=[1], dropout=0.0, aux_channels=0, upsample=4)
    assert bare(torch.randn(1, 3, 16, 16))[1] is None
    assert not any("auxiliary" in name for name, _ in bare.named_parameters())


def test_norm_groups_are_not_small() -> None:
    for channels, groups in ((768, 16), (512, 32), (64, 4), (48, 1), (16, 1), (7, 1)):
        assert group_norm(channels).num_groups == groups
