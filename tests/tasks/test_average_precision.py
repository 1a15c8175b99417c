"""AP against pycocotools, COCO's own program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sweet.data import Objects
from sweet.tasks.detection.average_precision import AveragePrecision

CLASSES = ["ant", "bee", "cow", "never"]
SIZE = (150, 200)


def draw(seed: int) -> list[tuple[Objects, dict[str, torch.Tensor]]]:
    """Images with objects of all sizes, some of them crowds, and detections near them, of wrong class, and anywhere."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> Any:
        corner = random.uniform(0, 100, (count, 2))
        return np.concatenate([corner, (corner + random.uniform(5, 110, (count, 2))).clip(0, (200, 150))], 1)

    def masks(of: Any) -> Any:
        out = np.zeros((len(of), *SIZE), bool)
        for mask, (x0, y0, x1, y1) in zip(out, of.round().astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
            mask[y0:y1, x0:x1] &= random.random((y1 - y0, x1 - x0)) < 0.9
        return out

    images = []
    for number in range(8):
        truth = boxes(0 if number == 0 else random.integers(1, 7))
        labels, shapes = random.integers(0, 3, len(truth)), masks(truth)
        near = (truth + random.normal(0, 2, truth.shape)).clip(0, (200, 150, 200, 150))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        found = np.concatenate([near, boxes(4)])
        guesses = np.where(random.random(len(found)) < 0.8, np.concatenate([labels, [0, 1, 2, 0]]), 1)
        seen = {
            "boxes": torch.tensor(found, dtype=torch.float32),
            "labels": torch.tensor(guesses),
            "scores": torch.tensor(random.random(len(found)), dtype=torch.float32),
            "masks": torch.from_numpy(masks(found)),
        }
        crowd = random.random(len(truth)) < 0.2
        images.append((Objects.of(truth, labels, crowd, shapes.sum((1, 2)), shapes), seen))
    return images


def oracle(
    images: list[tuple[Objects, dict[str, torch.Tensor]]], iou_type: str
) -> tuple[list[float | None], dict[str, float]]:
    def entries(number: int, boxes: Any, labels: Any, masks: Any) -> list[dict[str, Any]]:
        return [
            {
                "image_id": number + 1,
                "category_id": int(label) + 1,
                "bbox": [float(x0), float(y0), float(x1) - float(x0), float(y1) - float(y0)],
                "segmentation": rle.encode(np.asfortranarray(mask.astype(np.uint8))),
            }
            for (x0, y0, x1, y1), label, mask in zip(boxes, labels, masks, strict=True)
        ]

    truth, found = [], []
    for number, (objects, seen) in enumerate(images):
        for place, one in enumerate(entries(number, objects.boxes, objects.labels, objects.masks)):
            crowd, area = int(objects.crowd[place]), float(objects.area[place])
            truth.append({**one, "iscrowd": crowd, "area": area, "id": len(truth) + 1})
        for place, one in enumerate(entries(number, seen["boxes"], seen["labels"], seen["masks"].numpy())):
            del one["segmentation" if iou_type == "bbox" else "bbox"]
            found.append({**one, "score": float(seen["scores"][place])})
    theirs = COCO()
    theirs.dataset = {
        "images": [{"id": n + 1, "height": SIZE[0], "width": SIZE[1]} for n in range(len(images))],
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(CLASSES)],
        "annotations": truth,
    }
    theirs.createIndex()
    work = COCOeval(theirs, theirs.loadRes(found), iou_type)
    work.evaluate()
    work.accumulate()
    work.summarize()
    classes = {}
    for label, name in enumerate(CLASSES):
        values = work.eval["precision"][:, :, label, 0, 2]
        if (values > -1).any():
            classes[name] = 100 * float(values[values > -1].mean())
    return [None if value < 0 else 100 * float(value) for value in work.stats[:6]], classes


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_agrees_with_pycocotools(seed: int) -> None:
    images = draw(seed)
    ours = AveragePrecision(CLASSES, masks=True)
    for objects, seen in images:
        ours.add(SIZE, objects, seen)
    metrics = ours.compute().to_dict()
    for iou_type, key in (("bbox", "box"), ("segm", "mask")):
        expected, classes = oracle(images, iou_type)
        names = [f"ap_{key}{end}" for end in ("", "50", "75", "_small", "_medium", "_large")]
        for name, value in zip(names, expected, strict=True):
            assert metrics[name] == (value if value is None else pytest.approx(value, abs=1e-3)), name
        assert metrics[f"per_class_{key}"] == pytest.approx(classes, abs=1e-3)
        assert 3 < metrics[f"ap_{key}"] < 95
        assert "never" not in classes
    boxes_alone = AveragePrecision(CLASSES, masks=False)
    for objects, seen in images:
        boxes_alone.add(SIZE, objects, {key: value for key, value in seen.items() if key != "masks"})
    assert boxes_alone.compute().to_dict() == {key: value for key, value in metrics.items() if "mask" not in key}


def test_nothing_found_and_nothing_of_a_size() -> None:
    box = [[10, 10, 20, 20]]
    truth = Objects.of(box, [0], [0], [100], None)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    exact = {"boxes": torch.tensor(box).float(), "labels": torch.tensor([0]), "scores": torch.tensor([0.3])}
    for found, expected in ((nothing, 0.0), (exact, 100.0)):
        ours = AveragePrecision(CLASSES, masks=False)
        ours.add(SIZE, truth, found)
        metrics = ours.compute().to_dict()
        assert (metrics["ap_box"], metrics["ap_box_small"], metrics["ap_box_large"]) == (expected, expected, None)
        assert metrics["per_class_box"] == {"ant": expected}
