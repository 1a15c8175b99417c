"""Targets of images with several labels each."""

from __future__ import annotations

import torch
from torch import Tensor

from sweet.errors import UserError

from .images import ImageSource


def label_tensor(images: ImageSource) -> Tensor | None:
    """The labels of a set as (N,) int64; where it has lists of labels alone, (N, K) float32, 1 for each in the list."""
    if images.labels is not None:
        return torch.tensor(images.labels, dtype=torch.int64)
    if images.label_lists is None or images.classes is None:
        return None
    targets = torch.zeros(len(images), len(images.classes))
    for row, several in enumerate(images.label_lists):
        targets[row, several] = 1
    return targets


def with_lists_alone(images: ImageSource) -> ImageSource:
    """The set with its lists of labels as its only labels. Raises UserError where it has none."""
    if images.label_lists is None or images.classes is None:
        raise UserError(
            f"--data {images.name}: does not say which classes each image has, and the task needs it "
            "(csv:PATH, parquet:PATH with a column labels, or boxes)"
        )
    chosen = images.select(range(len(images)))
    chosen.labels = None
    return chosen
