"""Classes of unequal size: how many images each has, weights for the loss, and an order that shows all alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassCounts:
    """Images of each class, in the order of ``names``; of lists of labels, those that have the class among theirs."""

    names: list[str]
    counts: list[int]
    images: int

    def text(self) -> str:
        """The smallest and the largest class, and how many have no image, in one line."""
        known = [(count, name) for count, name in zip(self.counts, self.names, strict=True) if count]
        if not known:
            return f"{self.images} images, none of them with a class"
        (low, rare), (high, common) = min(known), max(known)
        absent = len(self.names) - len(known)
        tail = f"; {absent} of {len(self.names)} classes have none" if absent else ""
        return f"{self.images} images in {len(known)} classes, from {low} ({rare}) to {high} ({common}){tail}"


def class_counts(labels: Tensor, names: list[str]) -> ClassCounts:
    """Of labels (N,) int64, or of targets (N, K) that are 0 or 1."""
    counts = labels.sum(0).long() if labels.dim() == 2 else torch.bincount(labels, minlength=len(names))
    return ClassCounts(names, counts.tolist(), len(labels))


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(K,) float32: N / (K' n) for a class of ``n`` images, with K' the classes that occur; 1 for one without images.

    The mean weight over the N images is 1, so that the loss keeps its scale and the learning rate its meaning.
    """
    counts = torch.bincount(labels, minlength=classes)
    known = counts > 0
    weights = len(labels) / (int(known.sum()) * counts.clamp(min=1).double())
    return torch.where(known, weights, 1.0).float()


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) int64, N images of one epoch: each class as often as every other (within one), its images in turn.

    Which classes get one more, the order in a class and the order of the whole are drawn from the generator.
    """
    present = labels.unique()
    each, more = divmod(len(labels), len(present))
    lucky = set(torch.randperm(len(present), generator=generator)[:more].tolist())
    drawn = []
    for place, label in enumerate(present.tolist()):
        members = torch.nonzero(labels == label)[:, 0]
        wanted = each + (place in lucky)
        rounds = [members[torch.randperm(len(members), generator=generator)] for _ in range(-(-wanted // len(members)))]
        drawn.append(torch.cat([*rounds, members[:0]])[:wanted])
    chosen = torch.cat(drawn)
    return chosen[torch.randperm(len(chosen), generator=generator)]
