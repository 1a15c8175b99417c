"""From which probability on an image has a class: the threshold of the best F1, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DEFAULT = 0.5  # of a class of which there is nothing to choose by
DIGITS = 6


@dataclass(frozen=True)
class Counts:
    """Of each class (K,): images that were rightly given it, that were given it, and that have it."""

    hits: Tensor
    given: Tensor
    there: Tensor

    @property
    def f1(self) -> Tensor:
        """(K,) in percent, 2 hits / (given + there); NaN for a class that neither is nor was given."""
        return 200 * self.hits / (self.given + self.there)


def counts_at(probabilities: Tensor, targets: Tensor, thresholds: Tensor) -> Counts:
    """Of probabilities and targets (N, K), thresholds (K,)."""
    given, there = probabilities >= thresholds, targets > 0.5
    return Counts((given & there).sum(0).double(), given.sum(0).double(), there.sum(0).double())


def best_thresholds(probabilities: Tensor, targets: Tensor) -> Tensor:
    """(K,) float64: for each class the threshold of the highest F1, between two probabilities (N, K) that occur.

    Of several equally good ones the highest; ``DEFAULT`` for a class that all images have, or none.
    """
    columns = zip(probabilities.double().t(), targets.t(), strict=True)
    return torch.tensor([_best(scores, there > 0.5) for scores, there in columns], dtype=torch.float64)


def _best(scores: Tensor, there: Tensor) -> float:
    positives = int(there.sum())
    if not 0 < positives < len(there):
        return DEFAULT
    scores, order = scores.sort(descending=True)
    hits = there[order].cumsum(0)
    f1 = 2 * hits / (torch.arange(1, len(scores) + 1) + positives)
    below = torch.cat([scores[1:], scores.new_zeros(1)])
    cut = scores > below  # between equal scores there is no threshold
    cut[-1] = True
    place = int(torch.where(cut, f1, -1.0).argmax())
    return round(float((scores[place] + below[place]) / 2), DIGITS)
