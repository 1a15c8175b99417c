"""Faster and Mask R-CNN on a plain ViT: torchvision's proposals and heads, ViTDet's backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from sweet.tasks.task import Options

from .features import feature_maps
from .pyramid import SimpleFeaturePyramid

RATIOS = (0.5, 1.0, 2.0)  # of an anchor, height to width


class DetectOptions(Options):
    """What the detector around the ViT is like. The defaults are ViTDet's."""

    use = frozenset({"window", "proposals", "rois", "score", "overlap", "detections"})

    masks: bool | None = None  # None: where all objects of the training and validation images have one
    window: int = Field(14, ge=0)  # patches a side; 0: every block sees the whole image
    channels: int = Field(256, ge=1)
    upsample: Literal[4, 2, 1] = 4  # how much finer than the patches the finest map is
    convs: int = Field(4, ge=0)  # layers of ``channels`` below boxes and masks
    fc_width: int = Field(1024, ge=1)
    anchor_scale: float = Field(8.0, gt=0)  # side of an anchor, as a multiple of the stride of its level
    proposals: int = Field(1000, ge=1)  # boxes of an image that the heads look at
    rois: int = Field(512, ge=1)  # boxes of an image that the heads learn from
    score: float = Field(0.05, ge=0, lt=1)  # what is less sure is not reported
    overlap: float = Field(0.5, gt=0, le=1)  # of two boxes of a class that overlap more, the surer one is kept
    detections: int = Field(100, ge=1)  # per image


class PaddedInput(GeneralizedRCNNTransform):
    """Normalised images of any size -> one batch (B, C, H, W), padded with zeros at the right and at the bottom.

    H and W are ``limits``, up to a multiple of ``multiple``, so that neither an image's neighbours in the batch nor its
    shape change what is found in it. While training the images come resized; else they are resized (antialiased) to fit
    into ``limits``, and boxes and masks go back to the image as it was.
    """

    def __init__(self, limits: tuple[int, int], multiple: int) -> None:
        super().__init__(min(limits), max(limits), [0.0], [1.0], size_divisible=multiple)
        self.limits = limits
        self.padded = tuple(-(-limit // multiple) * multiple for limit in limits)

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        if self.training:
            return image, target
        scale = min(limit / side for limit, side in zip(self.limits, image.shape[-2:], strict=True))
        sides = [max(1, round(side * scale)) for side in image.shape[-2:]]
        return F.interpolate(image[None], size=sides, mode="bilinear", antialias=True)[0], target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        batch = images[0].new_zeros(len(images), images[0].shape[0], *self.padded)
        for padded, image in zip(batch, images, strict=True):
            padded[:, : image.shape[1], : image.shape[2]] = image
        return batch

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        for found, shape, original in zip(result, image_shapes, original_image_sizes, strict=True):
            found["boxes"] = resize_boxes(found["boxes"], shape, original)
            if "masks" in found:  # one at a time: a hundred float masks of a photograph do not fit into memory
                masks = found["masks"].new_zeros(len(found["masks"]), *original, dtype=torch.bool)
                for place, (mask, box) in enumerate(zip(found["masks"], found["boxes"], strict=True)):
                    masks[place] = paste_masks_in_image(mask[None], box[None], original)[0, 0] > 0.5
                found["masks"] = masks
        return result


class Float32RPNHead(RPNHead):
    """Its numbers in float32: in bfloat16 torchvision would round every box to it, as it takes the type of these."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, deltas = super().forward(x)
        return [level.float() for level in scores], [level.float() for level in deltas]


class Float32Predictor(FastRCNNPredictor):
    """As :class:`Float32RPNHead`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


def roi_align_of(strides: Sequence[float], size: int) -> MultiScaleRoIAlign:
    """Features (size, size) of boxes from maps with a point every ``strides`` pixels, the finest first.

    Left alone torchvision guesses the strides, as powers of two, from the shape of the first image that it sees.
    """
    pool = MultiScaleRoIAlign([str(place) for place in range(len(strides))], size, 2)
    finest, coarsest = (round(math.log2(stride)) for stride in (strides[0], strides[-1]))
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = initLevelMapper(finest, coarsest, pool.canonical_scale, pool.canonical_level)
    return pool


class Detector(nn.Module):
    """The ViT as ``vit``, its pyramid and the heads; boxes are (x0, y0, x1, y1) in pixels of each image."""

    def __init__(self, vit: Any, classes: int, options: DetectOptions) -> None:
        super().__init__()
        patch = vit.patch_embed.patch_size[0]
        channels, proposals = options.channels, options.proposals
        self.window = options.window
        self.vit = vit
        self.transform = PaddedInput(vit.patch_embed.img_size, 4 * patch)
        self.pyramid = SimpleFeaturePyramid(vit.embed_dim, channels, options.upsample)
        strides = [patch / factor for factor in self.pyramid.factors]
        sizes = tuple((options.anchor_scale * stride,) for stride in [*strides, 2 * strides[-1]])
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
            Float32RPNHead(channels, len(RATIOS), conv_depth=2),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * proposals, "testing": proposals},
            post_nms_top_n={"training": proposals, "testing": proposals},
            nms_thresh=0.7,
        )
        hidden = [channels] * options.convs
        self.roi_heads = RoIHeads(
            roi_align_of(strides, 7),
            FastRCNNConvFCHead((channels, 7, 7), hidden, [options.fc_width], LayerNorm2d),
            Float32Predictor(options.fc_width, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=options.rois,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=options.score,
            nms_thresh=options.overlap,
            detections_per_img=options.detections,
            mask_roi_pool=roi_align_of(strides, 14) if options.masks else None,
            mask_head=MaskRCNNHeads(channels, hidden, 1, LayerNorm2d) if options.masks else None,
            mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1) if options.masks else None,
        )

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Normalised images (C, h, w). While training {name: loss}; else per image a dict of what is found in it.

        Targets and findings have ``boxes`` (n, 4), ``labels`` (n,) from 0 and, with masks, ``masks``: targets (n, h, w)
        uint8, findings bool. Findings have ``scores`` (n,) and are sorted by them.
        """
        shapes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, _ = self.transform(images)
        if targets is not None:  # torchvision's class 0 is the background
            targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        (last,) = feature_maps(self.vit, batch.tensors, [len(self.vit.blocks) - 1], window=self.window)
        # anchors take the type of the maps, and bfloat16 has no room for a coordinate above 256
        maps = {name: level.float() for name, level in self.pyramid(last).items()}
        boxes, losses = self.rpn(batch, maps, targets)
        found, more = self.roi_heads(maps, boxes, batch.image_sizes, targets)
        if self.training:
            return losses | more
        for one in found:
            one["labels"] = one["labels"] - 1
        with torch.autocast(batch.tensors.device.type, enabled=False):
            return self.transform.postprocess(found, batch.image_sizes, shapes)
