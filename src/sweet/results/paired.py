"""How far two arms of a table lie apart, paired over replicates, and how sure that is.

A run is taken as the mean of its arm, plus what all arms of its replicate share, plus noise. The noise has one
variance, estimated from all arms and columns of a table together, so that three replicates are not judged by two
degrees of freedom. Where several differences are judged Holm's correction keeps the chance of one wrong verdict at
5 %. A single replicate shows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sweet.tasks.registry import Metric

Verdict = Literal["gain", "no gain", "worse", "one seed"]
LEVEL = 0.05


SIGMAS = 1.96  # of a normal distribution, which hold 95 % of it


def sampling_interval(accuracy: float, images: int) -> float:
    """Half of the 95 % interval of an accuracy in %, by the choice of the images that it was measured on alone."""
    return SIGMAS * math.sqrt(max(0.0, accuracy * (100 - accuracy)) / images)


@dataclass(frozen=True)
class Mean:
    """Mean and sample standard deviation over seeds; the deviation of a single seed is nan."""

    value: float
    spread: float
    seeds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """Of one or more values."""
        found = list(values)
        mean = sum(found) / len(found)
        if len(found) < 2:
            return cls(mean, math.nan, 1)
        return cls(mean, math.sqrt(sum((v - mean) ** 2 for v in found) / (len(found) - 1)), len(found))

    def text(self, metric: Metric) -> str:
        """``mean ± standard deviation (seeds)``."""
        spread = f" ± {metric.text(self.spread)}" if self.seeds > 1 else ""
        return f"{metric.text(self.value)}{spread} ({self.seeds})"


@dataclass(frozen=True)
class Noise:
    """The variance of a run beside the means of its arm and its replicate, and the degrees of freedom behind it."""

    variance: float
    freedom: int

    @classmethod
    def of(cls, columns: Iterable[Sequence[Mapping[int, float]]]) -> Noise:
        """Pooled over columns, each with {replicate: value} of its arms; nan without a degree of freedom."""
        squares, freedom = 0.0, 0
        for arms in columns:
            rows = [(i, seed, value) for i, values in enumerate(arms) for seed, value in values.items()]
            seeds = sorted({seed for _, seed, _ in rows})
            design = np.zeros((len(rows), len(arms) + len(seeds)))
            for row, (arm, seed, _) in enumerate(rows):
                design[row, [arm, len(arms) + seeds.index(seed)]] = 1
            values = np.array([value for _, _, value in rows])
            fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
            squares += float(np.square(values - design @ fitted).sum())
            freedom += len(rows) - int(rank)
        return cls(squares / freedom if freedom else math.nan, freedom)

    def error(self, seeds: int) -> float:
        """The standard error of a paired difference over so many replicates."""
        return math.sqrt(2 * self.variance / seeds)


@dataclass(frozen=True)
class Difference:
    """One arm minus another, with the sign chosen so that above zero the first is better.

    ``error`` is its standard error with ``freedom`` degrees of freedom, nan for a single replicate. ``p`` is two-sided,
    corrected for all that is judged beside it.
    """

    value: float
    error: float
    seeds: int
    freedom: int = 0
    p: float = math.nan

    @property
    def verdict(self) -> Verdict:
        """``gain`` and ``worse`` only where ``p`` is below 5 %, else ``no gain``; ``one seed`` shows nothing."""
        if math.isnan(self.error):
            return "one seed"
        if not self.p < LEVEL or self.value == 0:
            return "no gain"
        return "gain" if self.value > 0 else "worse"

    @property
    def alone(self) -> float:
        """``p`` of this difference by itself."""
        if math.isnan(self.error):
            return math.nan
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return 1 - student(abs(self.value) / self.error, self.freedom)

    @property
    def margin(self) -> float:
        """Half of the 95 % interval, of this difference by itself."""
        return math.nan if math.isnan(self.error) else quantile(self.freedom) * self.error

    def text(self, digits: int = 2) -> str:
        """``+1.23 ± 0.45``, the 95 % interval; a single replicate has none."""
        return signed(self.value, digits) + ("" if math.isnan(self.error) else f" ± {self.margin:.{digits}f}")


def paired(ours: Mapping[int, float], theirs: Mapping[int, float], metric: Metric) -> tuple[float, int] | None:
    """(mean difference, replicates) of two arms' {replicate: value}, over those that both have; None without one.

    Above zero the first is better.
    """
    seeds = ours.keys() & theirs.keys()
    if not seeds:
        return None
    mean = sum(ours[seed] - theirs[seed] for seed in seeds) / len(seeds)
    return metric.sign * mean, len(seeds)


def holm(values: Sequence[float]) -> list[float]:
    """p values, each corrected for all of them (Holm, 1979); nan is left out."""
    order = sorted((value, i) for i, value in enumerate(values) if not math.isnan(value))
    result, highest = list(values), 0.0
    for rank, (value, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * value))
        result[i] = highest
    return result


def student(t: float, freedom: int) -> float:
    """P(|T| <= t) of Student's t with a whole number of degrees of freedom, as the finite sum that it is."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def quantile(freedom: int) -> float:
    """t with P(|T| > t) = :data:`LEVEL`; infinite without a degree of freedom."""
    if freedom < 1:
        return math.inf
    low, high = 0.0, 1.0
    while student(high, freedom) < 1 - LEVEL:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student(middle, freedom) < 1 - LEVEL else (low, middle)
    return high


def signed(value: float, digits: int) -> str:
    """With a plus or a minus sign (U+2212)."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
