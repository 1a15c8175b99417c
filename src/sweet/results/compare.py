"""The main arm of a table against every other one, in numbers (:mod:`sweet.results.paired`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sweet.tasks.registry import Metric

from .paired import Difference, Mean, Verdict, difference
from .table import Table

AVERAGE = "average"


@dataclass(frozen=True)
class Differences:
    """One arm minus all others in one metric: {arm: {column or "average": difference}}, whatever could be paired.

    "average" is there where both arms were measured in every column of ``table.common``, with a common seed.
    """

    table: Table
    main: str
    metric: Metric
    against: Mapping[str, Mapping[str, Difference]]

    @cached_property
    def baselines(self) -> list[str]:
        """The arms that the main one is judged against."""
        return [arm for arm in self.table.baselines if arm in self.against]

    @cached_property
    def variants(self) -> list[str]:
        """Other arms of our own method."""
        return [arm for arm in self.against if arm not in self.baselines]

    @cached_property
    def strongest(self) -> str | None:
        """The baseline on which the main arm gains least, on average over columns.

        Only baselines that were measured in half as many columns as any or more count, and where any baseline has
        columns with several seeds only those columns.
        """
        found = {arm: [*self.by_column(arm).values()] for arm in self.baselines}
        several = {arm: [one for one in differences if one.seeds > 1] for arm, differences in found.items()}
        counted = several if any(several.values()) else found
        most = max(map(len, counted.values()), default=0)
        gains = {
            arm: Mean.of(one.value for one in differences).value
            for arm, differences in counted.items()
            if 2 * len(differences) >= most
        }
        return min(gains, key=lambda arm: gains[arm], default=None)

    def decided(self) -> list[Difference]:
        """The differences from baselines in each column; baselines with the same initial weights there count once."""
        found: dict[tuple[str, tuple[tuple[int, float], ...]], Difference] = {}
        for arm in self.baselines:
            for column, one in self.by_column(arm).items():
                found.setdefault((column, (*self.table.values(arm, column, self.metric.key).items(),)), one)
        return [*found.values()]

    def columns_of(self, arm: str, verdict: Verdict) -> list[str]:
        """The columns with a verdict, the largest difference first."""
        found = {column: one for column, one in self.by_column(arm).items() if one.verdict == verdict}
        return sorted(found, key=lambda column: -abs(found[column].value))

    def by_column(self, arm: str) -> dict[str, Difference]:
        """Without the average."""
        return {column: one for column, one in self.against[arm].items() if column != AVERAGE}


def compare(table: Table, main: str | None = None) -> Differences | None:
    """``main`` (by default the table's) against every arm that shares a seed and a column with it, in the metric that
    decides; None where there is nothing to compare."""
    metric, main = table.metrics[0], main or table.main
    if main is None:
        return None
    against = {}
    for arm in table.arms:
        found = {column: one for column in table.columns if (one := _difference(table, main, arm, [column], metric))}
        if arm == main or not found:
            continue
        average = _difference(table, main, arm, table.common, metric) if len(table.common) > 1 else None
        against[arm] = found | ({AVERAGE: average} if average else {})
    return Differences(table, main, metric, against) if against else None


def _difference(table: Table, main: str, arm: str, columns: Sequence[str], metric: Metric) -> Difference | None:
    mine, theirs = (table.by_seed(one, columns, metric.key) for one in (main, arm))
    return difference(mine, theirs, metric)


@dataclass(frozen=True)
class Gains:
    """One arm minus the best baseline, above zero where it is better.

    ``mean`` is the mean over columns of the gains on the best baseline of each; ``in_average``, the paper's, is its
    average minus that of the baseline that is best on average. Both are None where an arm lacks a common column.
    """

    columns: Mapping[str, float]
    mean: float | None = None
    in_average: float | None = None


def gains_over_best(
    means: Mapping[str, Mapping[str, float]],
    main: str,
    columns: Sequence[str],
    *,
    baselines: Sequence[str],
    higher: bool = True,
    common: Sequence[str] | None = None,
) -> Gains:
    """The gains of ``main`` in ``means[arm][column]`` (methods 0, check 5).

    Averages are over ``common``, by default all columns.
    """
    common = columns if common is None else common
    sign = 1 if higher else -1
    gains = {
        column: sign * means[main][column] - max(sign * means[arm][column] for arm in baselines if column in means[arm])
        for column in columns
        if column in means[main] and any(column in means[arm] for arm in baselines)
    }
    if not (gains and common and all(column in means[arm] for arm in [main, *baselines] for column in common)):
        return Gains(gains)
    average = {arm: sign * sum(means[arm][column] for column in common) / len(common) for arm in [main, *baselines]}
    mean = sum(gains[column] for column in common) / len(common)
    return Gains(gains, mean, average[main] - max(average[arm] for arm in baselines))
