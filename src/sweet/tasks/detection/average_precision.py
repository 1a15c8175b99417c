"""Average precision by the COCO protocol: IoU from 0.5 to 0.95, at most 100 objects per image (cocodataset.org)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray
from torch import Tensor

from sweet.data import Objects

KEYS = ("", "50", "75", "_small", "_medium", "_large")


class AveragePrecision:
    """Collects what is found in images and what is there, then compares. Masks are kept as run lengths."""

    def __init__(self, classes: Sequence[str], *, masks: bool) -> None:
        self.classes, self.masks = classes, masks
        self.images: list[dict[str, Any]] = []
        self.truth: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []

    def add(self, size: tuple[int, int], truth: Objects, found: Mapping[str, Tensor]) -> None:
        """One image of ``size`` (H, W): its objects, and what :class:`.detector.Detector` found in it."""
        number = len(self.images) + 1  # 0 would mean "none" to COCO
        self.images.append({"id": number, "height": size[0], "width": size[1]})
        for place, entry in enumerate(self._entries(number, truth.boxes, truth.labels, truth.masks)):
            told = {"iscrowd": int(truth.crowd[place]), "area": float(truth.area[place])}
            self.truth.append({"id": len(self.truth) + 1, **entry, **told})
        values = {name: value.cpu().numpy() for name, value in found.items()}
        entries = self._entries(number, values["boxes"], values["labels"], values.get("masks"))
        scores = values["scores"].tolist()
        self.found += [{**entry, "score": score} for entry, score in zip(entries, scores, strict=True)]

    def compute(self) -> dict[str, Any]:
        """{"ap_box", "ap_box50", "ap_box75", "ap_box_small", "_medium", "_large", "per_class_box"} and for masks, in %.

        None where there is no object of such a kind.
        """
        metrics = self._compare("bbox", "ap_box", "per_class_box")
        return metrics | (self._compare("segm", "ap_mask", "per_class_mask") if self.masks else {})

    def _entries(self, image: int, boxes: NDArray, labels: NDArray, masks: NDArray | None) -> list[dict[str, Any]]:
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        entries: list[dict[str, Any]] = [
            {"image_id": image, "category_id": int(label) + 1, "bbox": box}
            for box, label in zip(sides.tolist(), labels, strict=True)
        ]
        if self.masks and len(entries):
            assert masks is not None
            shapes = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
            for entry, shape in zip(entries, shapes, strict=True):
                entry["segmentation"] = shape
        return entries

    def _compare(self, kind: Literal["bbox", "segm"], key: str, per_class: str) -> dict[str, Any]:
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(self.classes)]
        # what is found counts as small or large by its box or by its mask, whichever is compared: COCO reads that
        # off the fields, and it writes into them
        other = "bbox" if kind == "segm" else "segmentation"
        found = [{name: value for name, value in entry.items() if name != other} for entry in self.found]
        truth = COCO({"images": self.images, "annotations": [dict(e) for e in self.truth], "categories": categories})
        work = COCOeval_faster(truth, truth.loadRes(found), kind, print_function=_silent)
        work.run()
        precision = work.eval["precision"][:, :, :, 0, -1]  # IoU x recall x class, all areas, 100 objects
        seen = [values[values > -1] for values in np.moveaxis(precision, 2, 0)]
        means = [_percent(values.mean()) if len(values) else None for values in seen]
        summary = {f"{key}{end}": _percent(value) for end, value in zip(KEYS, work.stats, strict=False)}
        return summary | {
            per_class: {name: value for name, value in zip(self.classes, means, strict=True) if value is not None}
        }


def _percent(value: float) -> float | None:
    return None if value < 0 else round(100 * float(value), 3)


def _silent(*_: Any) -> None:
    """In the place of print."""
