"""Images with several labels or objects each: targets, and what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from sweet.errors import UserError

from .findings import Finding, class_findings, counted, some_names
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


def flat_labels(images: ImageSource) -> list[int] | None:
    """Every label of every image; None unless the set says for each image which labels it has, and nothing else."""
    if images.label_lists is None or images.labels is not None or images.has_boxes:
        return None
    return [label for several in images.label_lists for label in several]


def list_findings(images: ImageSource) -> list[Finding]:
    """How many labels the images have, and labels that none has."""
    labels = flat_labels(images)
    if labels is None or images.label_lists is None:
        return []
    counts = [len(several) for several in images.label_lists]
    found = f"{min(counts)} to {max(counts)} labels an image, {len(labels) / max(1, len(counts)):.1f} on average"
    rows = [Finding(images.split, found, "learned by --task multilabel")]
    if empty := counts.count(0):
        rows.append(Finding(images.split, f"{counted(empty, 'image')} without a label", "kept, as images of no class"))
    return rows + class_findings(images.split, images.classes, labels, what="image with them")


def object_findings(images: ImageSource, masks: Sequence[bool]) -> list[Finding]:
    """Rows about boxes. ``masks``: of each object, whether it has one."""
    split, lists = images.split, images.label_lists or []
    found = class_findings(split, images.classes, [label for several in lists for label in several], what="object")
    empty = [Path(images.where(index)).name for index, several in enumerate(lists) if not several]
    if empty:
        handling = "kept: they teach what is no object"
        found.append(Finding(split, some_names(empty, "images without objects"), handling))
    if images.left_out:
        outside = f"{counted(images.left_out, 'object')} outside the image, or without width or height"
        found.append(Finding(split, outside, "left out", warn=True))
    if masks and not all(masks):
        objects, some = counted(len(masks), "object"), any(masks)
        without = f"{masks.count(False)} of {objects} without a mask" if some else f"{objects}, none with a mask"
        found.append(Finding(split, without, "boxes alone are learned", warn=some))
    return found


def with_lists_alone(images: ImageSource) -> ImageSource:
    """The set with its lists of labels as its only labels. Raises UserError where it has none."""
    if images.label_lists is None or images.classes is None:
        raise UserError(
            f"--data {images.name}: does not say which classes each image has, and the task needs it "
            "(csv:PATH, parquet:PATH with a column labels, or boxes)"
        )
    alone = copy(images)
    alone.labels = None
    return alone
