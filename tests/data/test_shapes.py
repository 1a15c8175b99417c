from __future__ import annotations

import numpy as np
import pytest
import torch

from sweet.data import open_images, pack
from sweet.data.shapes import CLASSES, SHAPES, ShapeImages


@pytest.fixture(scope="module")
def scenes() -> ShapeImages:
    return ShapeImages("shapes:", "train", 60, 32, 0)


def test_deterministic_and_distinct(scenes: ShapeImages) -> None:
    again = ShapeImages("shapes:", "train", 60, 32, 0)
    assert np.array_equal(again.decode(7), scenes.decode(7))
    others = [ShapeImages("shapes:", "train", 60, 32, 1), ShapeImages("shapes:", "val", 60, 32, 0)]
    for other in (*others, scenes.select([17])):
        assert not np.array_equal(other.decode(7 % len(other)), scenes.decode(7))
    # More scenes change nothing in the first ones.
    assert np.array_equal(ShapeImages("shapes:", "train", 90, 32, 0).decode(7), scenes.decode(7))


def test_labels_boxes_and_masks(scenes: ShapeImages) -> None:
    assert scenes.labels is not None and scenes.classes == CLASSES and len(CLASSES) == 10
    several = 0
    for index in range(len(scenes)):
        scene = scenes.scene(index)
        assert scene.label == scenes.labels[index] == scene.object_labels[-1]
        assert len(scene.object_labels) == len(scene.boxes) == len(scene.masks)
        several += len(scene.boxes) > 1
        assert scene.masks.sum(0).max() == 1  # objects hide each other, they do not overlap
        assert scene.masks[-1].sum() == max(mask.sum() for mask in scene.masks)
        for (x0, y0, x1, y1), mask in zip(scene.boxes.astype(int), scene.masks, strict=True):
            assert mask[y0:y1, x0:x1].sum() == mask.sum() >= 4
            assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
    assert several > 30


@pytest.mark.parametrize("name", CLASSES)
def test_every_shape_fits_its_place(name: str) -> None:
    axis = np.linspace(-1.5, 1.5, 121, dtype=np.float32)
    inside = SHAPES[name](*np.meshgrid(axis, axis))
    reach = np.hypot(*np.meshgrid(axis, axis))[inside].max()
    assert 0.8 < reach < 1.25
    assert 0.05 < inside.mean() < 0.4


def test_splits_and_options() -> None:
    train, val = (open_images("shapes:n=100,size=16,seed=4", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (100, 20)
    assert train.size(0) == (16, 16) == train.decode(0).size
    assert len(open_images("shapes:", "train")) == 2000


def test_colour_and_place_do_not_tell_the_class() -> None:
    train, val = (pack(open_images("shapes:n=800,size=16", split), 16) for split in ("train", "val"))
    x, v = (torch.cat((p.images.flatten(1) / 255 - 0.5, torch.ones(len(p), 1)), 1) for p in (train, val))
    assert train.labels is not None and val.labels is not None
    targets = torch.nn.functional.one_hot(train.labels).float()
    weights = torch.linalg.solve(x.T @ x + 300 * torch.eye(x.shape[1]), x.T @ targets)
    accuracy = ((v @ weights).argmax(1) == val.labels).float().mean()
    assert accuracy < 0.3  # chance is 0.1; a small ViT passes 0.5 within a few hundred steps
