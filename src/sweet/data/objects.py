"""What is known of the objects in one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Objects:
    """``n`` objects of an image of H x W pixels, ``n`` may be 0.

    boxes (n, 4) float32, (x0, y0, x1, y1) in pixels, of positive width and height, inside the image; labels (n,) int64
    from 0; crowd (n,) bool, true for a group that is boxed as one: nothing to learn from, and no error to find it or
    not; area (n,) float32 in pixels, by which COCO calls an object small or large; masks (n, H, W) bool, or None.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float32]
    masks: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, boxes: Any, labels: Any, crowd: Any, area: Any, masks: NDArray[np.bool_] | None) -> Objects:
        """From lists or arrays of any type; empty ones get their shape."""
        return cls(
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(labels, np.int64).reshape(-1),
            np.asarray(crowd, np.bool_).reshape(-1),
            np.asarray(area, np.float32).reshape(-1),
            masks,
        )
