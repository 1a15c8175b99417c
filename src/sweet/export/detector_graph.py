"""A detector whose steps all have a fixed shape, so that ``torch.export`` can follow it.

torchvision drops boxes as it goes, and how many are left depends on the image. Here a dropped box keeps its place with
the score ``DROPPED``, and what is found is filled up to a fixed number. The numbers are those of the detector itself.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import nms, roi_align

from sweet.tasks.detection.detector import Detector
from sweet.tasks.detection.features import feature_maps

DROPPED = -1.0  # the score of a box that was dropped
MIN_SIDE = 1e-3, 1e-2  # pixels; of proposals and of findings, torchvision's
NAMES = ("boxes", "scores", "labels", "masks")


class DetectorGraph(nn.Module):
    """One image (1, C, H, W), padded, and the (2,) height and width of what is image in it -> findings.

    boxes (n, 4), scores (n,), labels (n,) int64 and, of a detector with masks, masks (n, 28, 28) of each box; n is
    fixed, the surest come first, and places left over have score 0, label -1 and an empty box. ``padded`` is (H, W).
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector.eval()
        self.padded = detector.transform.padded
        self.masks = detector.roi_heads.has_mask()

    def forward(self, images: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        model = self.detector
        (last,) = feature_maps(model.vit, images, [len(model.vit.blocks) - 1], window=model.window)
        maps = {name: level.float() for name, level in model.pyramid(last).items()}
        proposals, live = self._proposals(images, list(maps.values()), size)
        boxes, scores, labels = self._found(maps, proposals, live, size)
        found = scores > 0
        out = (boxes * found[:, None], scores * found, torch.where(found, labels - 1, -1))
        if not self.masks:
            return out
        heads = model.roi_heads
        logits = heads.mask_predictor(heads.mask_head(self._pooled(heads.mask_roi_pool, maps, boxes)))
        own = logits.gather(1, labels[:, None, None, None].expand(-1, 1, *logits.shape[2:]))[:, 0]
        return (*out, own.sigmoid() * found[:, None, None])

    def _proposals(self, images: Tensor, levels: list[Tensor], size: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (P, 4), and which of them are any (P,): as ``RegionProposalNetwork.filter_proposals``."""
        rpn: Any = self.detector.rpn
        logits, deltas = rpn.head(levels)
        anchors = rpn.anchor_generator(ImageList(images, [self.padded]), levels)
        counts = [level[0].numel() for level in logits]
        scores, flat = concat_box_prediction_layers(logits, deltas)
        boxes = clipped(rpn.box_coder.decode(flat, anchors).view(-1, 4), size)
        kept = [part.flatten().topk(min(rpn.pre_nms_top_n(), len(part))) for part in scores.flatten().split(counts)]
        starts = [sum(counts[:level]) for level in range(len(counts))]
        places = torch.cat([best.indices + start for best, start in zip(kept, starts, strict=True)])
        level = torch.cat([torch.full_like(best.indices, number) for number, best in enumerate(kept)])
        boxes = boxes[places]
        scores = torch.cat([best.values for best in kept]).sigmoid()
        scores = torch.where(wide(boxes, MIN_SIDE[0]), scores, DROPPED)
        best = surest(boxes, scores, level, rpn.nms_thresh, rpn.post_nms_top_n())
        return boxes[best.indices], best.values >= 0

    def _found(
        self, maps: dict[str, Tensor], proposals: Tensor, live: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (n, 4), scores (n,), labels (n,) from 1: as ``RoIHeads.postprocess_detections``."""
        heads: Any = self.detector.roi_heads
        logits, deltas = heads.box_predictor(heads.box_head(self._pooled(heads.box_roi_pool, maps, proposals)))
        classes = logits.shape[-1]
        boxes = clipped(heads.box_coder.decode(deltas, [proposals]), size)[:, 1:].reshape(-1, 4)
        scores = F.softmax(logits, -1)[:, 1:].reshape(-1)
        labels = torch.arange(1, classes).repeat(len(proposals))
        alive = live[:, None].expand(-1, classes - 1).reshape(-1)
        alive = alive & (scores > heads.score_thresh) & wide(boxes, MIN_SIDE[1])
        scores = torch.where(alive, scores, DROPPED)
        best = surest(boxes, scores, labels, heads.nms_thresh, heads.detections_per_img)
        return boxes[best.indices], best.values, labels[best.indices]

    def _pooled(self, pool: Any, maps: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """(n, C, s, s): of each box what its level of the pyramid has; as ``MultiScaleRoIAlign``."""
        rois = torch.cat([torch.zeros(len(boxes), 1), boxes], 1)
        chosen = pool.map_levels([boxes])[:, None, None, None]
        levels = [
            roi_align(maps[name], rois, pool.output_size, scale, pool.sampling_ratio)
            for name, scale in zip(pool.featmap_names, pool.scales, strict=True)
        ]
        found = levels[0]
        for number, level in enumerate(levels[1:], 1):
            found = torch.where(chosen == number, level, found)
        return found


def clipped(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (..., 4) inside an image of (height, width)."""
    limit = torch.stack([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes.clamp(min=0), limit)


def wide(boxes: Tensor, side: float) -> Tensor:
    """(n,) whether both sides of a box (n, 4) have so many pixels."""
    spans = boxes[:, 2:] - boxes[:, :2]
    return (spans[:, 0] >= side) & (spans[:, 1] >= side)


def surest(boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float, count: int) -> Any:
    """The ``count`` best of the boxes (n, 4) that no better one of their group covers: values and indices of ``topk``.

    What was dropped, or is covered, has the score ``DROPPED``.
    """
    apart = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
    kept = torch.zeros_like(scores).index_fill(0, nms(apart, scores, overlap), 1.0)
    return torch.where(kept > 0, scores, DROPPED).topk(min(count, len(scores)))
