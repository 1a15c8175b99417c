"""The network of a detector: shapes, sizes of images, what depends on what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sweet.models.config import ViTConfig
from sweet.models.vit import build_vit, materialised
from sweet.tasks.detection.detector import DetectOptions, Detector, PaddedInput
from sweet.tasks.detection.pyramid import SimpleFeaturePyramid

SMALL: dict[str, Any] = {
    "window": 0, "channels": 16, "upsample": 4, "convs": 1, "fc_width": 32, "anchor_scale": 4.0, "proposals": 40,
    "rois": 16, "score": 0.0, "overlap": 0.5, "detections": 10,
}  # fmt: skip


def detector(masks: bool = True, **options: Any) -> Detector:
    config = ViTConfig(depth=2, heads=2, head_dim=8, img_size=32, patch_size=4)
    torch.manual_seed(0)
    weights = {name: value.detach() for name, value in materialised(config).named_parameters()}
    return Detector(build_vit(config, weights, dynamic_img_size=True), 5, DetectOptions(masks=masks, **SMALL | options))


def target(count: int) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([[2.0, 3.0, 20.0, 25.0]] * count).view(-1, 4),
        "labels": torch.full((count,), 4),
        "masks": torch.ones(count, 24, 32, dtype=torch.uint8),
    }


@pytest.mark.parametrize(("upsample", "sides"), [(4, [32, 16, 8, 4, 2]), (2, [16, 8, 4, 2]), (1, [8, 4, 2])])
def test_scales_of_the_pyramid(upsample: int, sides: list[int]) -> None:
    pyramid = SimpleFeaturePyramid(16, 6, upsample)
    maps = pyramid(torch.randn(2, 16, 8, 8))
    assert [tuple(level.shape) for level in maps.values()] == [(2, 6, side, side) for side in sides]
    assert list(maps)[-1] == "pool"


def test_anchors_cover_the_image_at_every_level() -> None:
    """A padded side that the levels do not divide would shift torchvision's anchors against the maps."""
    network = detector().eval()
    batch, _ = network.transform([torch.zeros(3, 32, 20)])
    assert batch.tensors.shape == (1, 3, 32, 32)
    maps = network.pyramid(torch.randn(1, 16, 8, 8))
    (anchors,) = network.rpn.anchor_generator(batch, list(maps.values()))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres.amin() == 0 and centres.amax() == 31
    sides = sorted({round(float(side)) for side in (anchors[::3, 2] - anchors[::3, 0]).unique()})
    assert len(anchors) == 3 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2)
    assert len(sides) == 5


@pytest.mark.parametrize("masks", [True, False])
def test_every_parameter_learns(masks: bool) -> None:
    network = detector(masks).train()
    losses = network([torch.randn(3, 24, 32), torch.randn(3, 32, 30)], [target(2), target(0)])
    assert set(losses) == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", *(["loss_mask"] if masks else [])
    }  # fmt: skip
    sum(losses.values()).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("masks", [True, False])
def test_a_batch_without_objects(masks: bool) -> None:
    losses = detector(masks).train()([torch.randn(3, 24, 32)], [target(0)])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0


def test_neighbours_in_a_batch_do_not_matter() -> None:
    network = detector().eval()
    images = [torch.randn(3, 50, 70), torch.randn(3, 32, 16), torch.randn(3, 8, 9)]
    with torch.no_grad():
        together = network(images)
        for image, found in zip(images, together, strict=True):
            (alone,) = network([image])
            assert len(found["labels"]) == 10 and found["labels"].max() < 5 and found["labels"].min() >= 0
            assert found["masks"].shape == (10, *image.shape[1:]) and found["masks"].dtype == torch.bool
            assert found["boxes"][:, 2].max() <= image.shape[2] and found["boxes"][:, 3].max() <= image.shape[1]
            torch.testing.assert_close(alone["boxes"], found["boxes"], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(alone["scores"], found["scores"], rtol=1e-3, atol=1e-4)


def test_boxes_and_masks_go_back_to_the_image() -> None:
    """As torchvision's own transform does it, but for masks that are cut at one half."""
    ours = PaddedInput((32, 32), 16).eval()
    batch, _ = ours([torch.rand(3, 64, 40)])
    assert batch.tensors.shape[-2:] == (32, 32) and batch.image_sizes == [(32, 20)]
    boxes, probabilities = torch.tensor([[2.0, 4.0, 12.0, 30.0]]), torch.rand(1, 1, 28, 28)
    found = [{"boxes": boxes, "masks": probabilities}]
    (expected,) = super(PaddedInput, ours).postprocess([dict(found[0])], batch.image_sizes, [(64, 40)])
    (back,) = ours.postprocess(found, batch.image_sizes, [(64, 40)])
    assert back["boxes"].tolist() == [[4, 8, 24, 60]] == expected["boxes"].tolist()
    assert torch.equal(back["masks"], expected["masks"][:, 0] > 0.5)


def test_bfloat16_keeps_coordinates() -> None:
    """Anchors take the type of the maps, boxes that of what the heads say; bfloat16 has no digits for either."""
    network = detector(False).train()
    seen = []
    network.rpn.anchor_generator.register_forward_hook(lambda module, inputs, output: seen.append(output[0].dtype))
    network.roi_heads.box_roi_pool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1][0]))
    box = {"boxes": torch.tensor([[2.01, 3.02, 20.03, 25.04]]), "labels": torch.tensor([4])}
    with torch.autocast("cpu", torch.bfloat16):
        network([torch.randn(3, 32, 32)], [box])
        found = network.eval()([torch.randn(3, 32, 32)])[0]
    assert seen[0] == torch.float32
    assert (seen[1] == box["boxes"]).all(1).any()  # the truth is one of the boxes that are learned from
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
