"""How far two arms of a table lie apart, paired over seeds, and how sure that is.

A difference is a gain, or worse, from two standard errors on; a single seed shows nothing. Few seeds make a standard
error itself uncertain, so each difference also says whether a paired t test at 95 % sees it (``sure``): with two seeds
that takes 12.7 standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sweet.tasks.registry import Metric

Verdict = Literal["gain", "no gain", "worse", "one seed"]
# 97.5 % quantiles of Student's t for 2, 3, ... seeds; more seeds are held to the last, which is a little strict
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


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
class Difference:
    """One arm minus another, with the sign chosen so that above zero the first is better.

    ``error`` is the standard error of the mean over seeds, nan for a single seed.
    """

    value: float
    error: float
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """``gain`` and ``worse`` only from two standard errors on, else ``no gain``; ``one seed`` shows nothing."""
        if math.isnan(self.error):
            return "one seed"
        if self.value == 0 or abs(self.value) < 2 * self.error:
            return "no gain"
        return "gain" if self.value > 0 else "worse"

    @property
    def sure(self) -> bool:
        """Whether a paired t test at 95 % sees it."""
        if math.isnan(self.error):
            return False
        return abs(self.value) > T95[min(self.seeds - 2, len(T95) - 1)] * self.error

    def text(self, digits: int = 2) -> str:
        """``+1.23 ± 0.45``; a single seed has no error."""
        return signed(self.value, digits) + ("" if math.isnan(self.error) else f" ± {self.error:.{digits}f}")


def difference(ours: Mapping[int, float], theirs: Mapping[int, float], metric: Metric) -> Difference | None:
    """Of two arms' {seed: value}, over the seeds that both have; None without one."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    mean = Mean.of(ours[seed] - theirs[seed] for seed in seeds)
    return Difference(
        mean.value if metric.higher_is_better else -mean.value, mean.spread / math.sqrt(len(seeds)), len(seeds)
    )


def signed(value: float, digits: int) -> str:
    """With a plus or a minus sign (U+2212)."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
