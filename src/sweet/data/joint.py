"""Large-scale jitter (Ghiasi et al. 2021, arXiv 2012.07177): an image resized, cropped, flipped with its objects."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional as F

from sweet.template.image_size import ImageSize, sides

from .augment import random_flips
from .bands import Picture
from .objects import Objects
from .packed import to_tensor

MIN_SIDE = 1.0  # pixels; of what is cut off smaller than that, nothing can be learnt


def jittered(
    image: Picture,
    objects: Objects,
    size: ImageSize,
    *,
    scale: tuple[float, float],
    hflip: float,
    masks: bool,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixels (C, h, w) uint8, at most of ``size``, and what is left of the objects in them.

    The image is resized (bilinear, antialiased) to fit into ``size`` times a factor drawn from ``scale``, and a window
    of at most ``size`` is cut out of it. The second value holds ``boxes`` (n, 4) float32,
    ``labels`` (n,) and with ``masks`` those, (n, h, w) uint8; boxes then follow what is left of the masks. Crowds are
    left out.
    """
    limits = sides(size)[::-1]
    draws = torch.rand(3, generator=generator).tolist()
    drawn = scale[0] + (scale[1] - scale[0]) * draws[0]
    factor = min(drawn * limit / side for limit, side in zip(limits, image.size, strict=True))
    spans = [  # of the image, before it is resized
        min(side, max(1, round(limit / factor))) for side, limit in zip(image.size, limits, strict=True)
    ]
    out = [min(limit, max(1, round(span * factor))) for span, limit in zip(spans, limits, strict=True)]
    left, top = (int(draw * (side - span + 1)) for draw, side, span in zip(draws[1:], image.size, spans, strict=True))
    flip = bool(random_flips(1, hflip, generator))

    def cut(values: Tensor) -> Tensor:
        values = F.resized_crop(values, top, left, spans[1], spans[0], [out[1], out[0]])
        return (F.horizontal_flip(values) if flip else values).as_subclass(Tensor)

    alone = torch.from_numpy(~objects.crowd)
    whole = (image.height, image.width)
    pixels = cut(tv_tensors.Image(to_tensor(image)))
    labels, boxes = (torch.from_numpy(values)[alone] for values in (objects.labels, objects.boxes))
    boxes = cut(tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=whole))
    seen = {"labels": labels, "boxes": boxes}
    if masks:
        assert objects.masks is not None
        cut_masks = cut(tv_tensors.Mask(torch.from_numpy(objects.masks)[alone].to(torch.uint8)))
        visible = cut_masks.flatten(1).bool().any(1)
        boxes = torch.zeros_like(boxes)
        boxes[visible] = masks_to_boxes(cut_masks[visible]).to(boxes.dtype)
        boxes[visible, 2:] += 1  # from the last pixel to its far edge
        seen |= {"boxes": boxes, "masks": cut_masks}
    kept = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= MIN_SIDE
    return pixels, {name: values[kept] for name, values in seen.items()}
