"""How far two rows of a table lie apart, paired over seeds, and how sure that is.

A difference is a gain, or worse, from two standard errors on; a single seed shows nothing. Few seeds make a standard
error itself uncertain, so each difference also says whether a paired t test at 95 % sees it (``sure``): with two seeds
that asks for 12.7 standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweet.tasks.registry import Metric

# 97.5 % quantiles of Student's t for 2, 3, ... seeds; more seeds are held to the last, which is a little strict
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs, turned so that above zero ours is better; ``error`` is nan for a single seed."""

    value: float
    error: float
    seeds: int

    @property
    def verdict(self) -> str:
        """``gain`` and ``worse`` only beyond two standard errors, else ``no gain``; ``one seed`` shows nothing."""
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
        spread = "" if math.isnan(self.error) else f" ± {self.error:.{digits}f}"
        return f"{self.value:+.{digits}f}{spread}".replace("-", "\N{MINUS SIGN}")


def difference(ours: Mapping[int, float], theirs: Mapping[int, float], metric: Metric) -> Difference | None:
    """Of two rows' {seed: value}, over the seeds that both have; None without one."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    mean, spread = mean_and_spread([ours[seed] - theirs[seed] for seed in seeds])
    return Difference(mean if metric.higher_is_better else -mean, spread / math.sqrt(len(seeds)), len(seeds))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (nan for a single value)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def spread_text(values: Sequence[float], metric: Metric) -> str:
    """``mean ± standard deviation (seeds)``."""
    mean, spread = mean_and_spread(values)
    return metric.text(mean) + (f" ± {metric.text(spread)}" if len(values) > 1 else "") + f" ({len(values)})"
