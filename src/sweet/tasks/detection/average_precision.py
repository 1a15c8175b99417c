"""Average precision by the COCO protocol: IoU from 0.5 to 0.95, at most 100 objects per image (cocodataset.org)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray
from torch import Tensor

from sweet.data import Objects
from sweet.tasks.task import Metrics

Entry = dict[str, Any]  # an image or an annotation, as COCO's JSON files hold them
ENDINGS = ("", "50", "75", "_small", "_medium", "_large")  # of a metric's key, in the order of COCO's summary


class AveragePrecision:
    """Collects the objects of images and what is found in them, then compares. Masks are kept as run lengths.

    ``truth`` and ``found`` are annotations of COCO's JSON format, ``images`` its list of images.
    """

    def __init__(self, classes: Sequence[str], *, masks: bool) -> None:
        self.classes, self.masks = classes, masks
        self.images: list[Entry] = []
        self.truth: list[Entry] = []
        self.found: list[Entry] = []

    def add(self, size: tuple[int, int], truth: Objects, found: Mapping[str, Tensor]) -> None:
        """One image of ``size`` (H, W): its objects, and what :class:`.detector.Detector` found in it."""
        number = len(self.images) + 1  # 0 would mean "none" to COCO
        self.images.append({"id": number, "height": size[0], "width": size[1]})
        entries = self._entries(number, truth.boxes, truth.labels, truth.masks)
        for entry, crowd, area in zip(entries, truth.crowd.tolist(), truth.area.tolist(), strict=True):
            self.truth.append({"id": len(self.truth) + 1, **entry, "iscrowd": int(crowd), "area": area})
        values = {name: value.cpu().numpy() for name, value in found.items()}
        entries = self._entries(number, values["boxes"], values["labels"], values.get("masks"))
        scores = values["scores"].tolist()
        self.found += [{**entry, "score": score} for entry, score in zip(entries, scores, strict=True)]

    def compute(self) -> Metrics:
        """AP in percent of boxes, and of masks where they are compared; ``boxes`` counts the objects.

        ``ap_box`` is the mean over IoU 0.5 to 0.95, ``ap_box50`` and ``ap_box75`` are at one IoU. ``ap_box_small``,
        ``_medium`` and ``_large`` are of objects below 32^2, below 96^2 and of more pixels; None where there are none.
        ``per_class_box`` is ``ap_box`` of each class.
        """
        scores: dict[str, float | None] = {}
        per_class = {}
        for name, iou_type in (("box", "bbox"), *([("mask", "segm")] if self.masks else [])):
            found, classes = self._compare(iou_type)
            scores |= {f"ap_{name}{end}": value for end, value in zip(ENDINGS, found, strict=True)}
            per_class[f"per_class_{name}"] = classes
        return Metrics({**scores, "boxes": len(self.truth)}, len(self.images), per_class)

    def _entries(self, image: int, boxes: NDArray, labels: NDArray, masks: NDArray | None) -> list[Entry]:
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        entries: list[Entry] = [
            {"image_id": image, "category_id": int(label) + 1, "bbox": box}
            for box, label in zip(sides.tolist(), labels, strict=True)
        ]
        if self.masks and len(entries):
            assert masks is not None
            shapes = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
            for entry, shape in zip(entries, shapes, strict=True):
                entry["segmentation"] = shape
        return entries

    def _compare(self, iou_type: str) -> tuple[list[float | None], dict[str, float]]:
        """AP by :data:`ENDINGS`, and that of each class that occurs; by "bbox" or "segm", as COCO calls them."""
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(self.classes)]
        # what is found counts as small or large by its box or by its mask, whichever is compared: COCO reads that
        # off the fields, and it writes into them
        other = "bbox" if iou_type == "segm" else "segmentation"
        found = [{name: value for name, value in entry.items() if name != other} for entry in self.found]
        truth = COCO({"images": self.images, "annotations": [dict(e) for e in self.truth], "categories": categories})
        work = COCOeval_faster(truth, truth.loadRes(found), iou_type, print_function=_silent)
        work.run()
        precision = work.eval["precision"][:, :, :, 0, -1]  # IoU x recall x class, all areas, 100 objects
        valid = [values[values > -1] for values in np.moveaxis(precision, 2, 0)]
        classes = {
            name: round(100 * float(values.mean()), 3)
            for name, values in zip(self.classes, valid, strict=True)
            if len(values)
        }
        return [_percent(value) for value in work.stats[: len(ENDINGS)]], classes


def _percent(value: float) -> float | None:
    return None if value < 0 else round(100 * float(value), 3)


def _silent(*_: Any) -> None:
    """In the place of print."""
