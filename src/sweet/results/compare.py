"""The main arm of a table against every other one, in numbers (:mod:`sweet.results.paired`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sweet.tasks.registry import Metric

from .paired import Difference, Mean, Noise, Verdict, holm, paired
from .records import RULES
from .table import Table

AVERAGE = "average"


@dataclass(frozen=True)
class Differences:
    """One arm minus all others in one metric: {arm: {column or "average": difference}}, whatever could be paired.

    "average" is over the columns that the table has of both arms, where both were measured in all of them. Columns with
    one replicate count in it alone. ``noise`` is what the differences in columns are judged by.
    """

    table: Table
    main: str
    metric: Metric
    noise: Noise
    against: Mapping[str, Mapping[str, Difference]]

    @cached_property
    def baselines(self) -> list[str]:
        """The published baselines that the main arm is judged against; in an ablation all other arms."""
        return [arm for arm in self.table.baselines if arm in self.against]

    @cached_property
    def others(self) -> list[str]:
        """What it is judged against besides: conditioned baselines, the paper's method, lines to reach."""
        roles = ("conditioned", "paper", "reference")
        return [arm for role in roles for arm in self.of_role(role)]

    @cached_property
    def variants(self) -> list[str]:
        """Other arms of our own method."""
        return [arm for arm in self.against if arm not in (*self.baselines, *self.others)]

    def of_role(self, role: str) -> list[str]:
        """The arms of a role that it was paired with, but for those that count as baselines."""
        return [arm for arm in self.table.of_role(role) if arm in self.against and arm not in self.baselines]

    @cached_property
    def strongest(self) -> str | None:
        """The baseline on which the main arm gains least, on average over columns."""
        return self.least(self.baselines)

    def least(self, arms: Sequence[str]) -> str | None:
        """The one of ``arms`` on which the main arm gains least, on average over columns.

        Only arms that were measured in half as many columns as any or more count, where any has columns with several
        replicates only those columns, and of all columns those that these arms share, if there are any.
        """
        found = {arm: self.by_column(arm) for arm in arms}
        several = {arm: {column: one for column, one in row.items() if one.seeds > 1} for arm, row in found.items()}
        counted = several if any(several.values()) else found
        most = max(map(len, counted.values()), default=0)
        counted = {arm: row for arm, row in counted.items() if row and 2 * len(row) >= most}
        shared = set.intersection(*map(set, counted.values())) if counted else set()
        gains = {
            arm: Mean.of(one.value for column, one in row.items() if column in shared or not shared).value
            for arm, row in counted.items()
        }
        return min(gains, key=lambda arm: gains[arm], default=None)

    def decided(self, arms: Sequence[str] | None = None) -> list[Difference]:
        """The differences from ``arms``, by default the baselines, in each column; those with the same initial weights
        there count once."""
        found: dict[tuple[str, tuple[tuple[int, float], ...]], Difference] = {}
        for arm in self.baselines if arms is None else arms:
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

    def corrected(self) -> Differences:
        """With Holm's correction: over the columns of all arms that it is judged against, over their averages, and the
        same for variants of our own."""
        against = {arm: dict(row) for arm, row in self.against.items()}
        for arms in ([*self.baselines, *self.others], self.variants):
            for average in (False, True):
                places = [(arm, place) for arm in arms for place in against[arm] if (place == AVERAGE) == average]
                for (arm, place), p in zip(places, holm([against[a][b].alone for a, b in places]), strict=True):
                    against[arm][place] = replace(against[arm][place], p=p)
        return replace(self, against=against)


def compare(table: Table, main: str | None = None) -> Differences | None:
    """``main`` (by default the table's) against every arm that shares a seed and a column with it, in the metric that
    decides; None where there is nothing to compare, and in a sweep, whose arms are variants of rows."""
    metric, main = table.metrics[0], main or table.main
    if main is None or table.spec.validation:
        return None
    noise = _independent(table, Noise.of(distinct(table, [column], metric) for column in table.several))
    against = {}
    for arm in table.arms:
        found = {column: one for column in table.columns if (one := _in_column(table, main, arm, column, noise))}
        if arm == main or not found:
            continue
        average = _average(table, main, arm, found, noise)
        against[arm] = found | ({AVERAGE: average} if average else {})
    return Differences(table, main, metric, noise, against).corrected() if against else None


def distinct(table: Table, columns: Sequence[str], metric: Metric) -> list[Mapping[int, float]]:
    """{replicate: mean over columns} of the arms that have all of them; the same weights under two names count once."""
    found = [table.by_seed(arm, columns, metric.key) for arm in table.arms]
    return list({tuple(values.items()): values for values in found if values}.values())


def _independent(table: Table, noise: Noise) -> Noise:
    """With no more degrees of freedom than the sources of the replicates give.

    Arms of one source share its luck, and so do columns: their residuals are not independent.
    """
    seeds = {run.seed for run in table.runs}
    names = (next((one.source for one in table.cells_of(arm)[0].runs if one.source), arm) for arm in table.arms)
    sources = {_learned(table, name) for name in names}
    if table.spec.one_source or table.spec.version < RULES or len(sources) < 2 or len(seeds) < 2:
        return noise
    return replace(noise, freedom=min(noise.freedom, (len(sources) - 1) * (len(seeds) - 1)))


def _learned(table: Table, name: str) -> str:
    """The source that was learned: of one that is converted, the one that it is made from."""
    record = table.sources.get(name)
    return record.converted.source if record and record.converted else name


def _in_column(table: Table, main: str, arm: str, column: str, noise: Noise) -> Difference | None:
    metric = table.metrics[0]
    found = paired(table.values(main, column, metric.key), table.values(arm, column, metric.key), metric)
    if found is None:
        return None
    value, seeds = found
    judged = seeds > 1 and noise.freedom > 0
    return Difference(value, noise.error(seeds) if judged else float("nan"), seeds, noise.freedom)


def _average(table: Table, main: str, arm: str, found: Mapping[str, Difference], noise: Noise) -> Difference | None:
    """Over the columns that the table has of both; None for fewer than two, and until all of them are measured.

    The sizes of a replicate share its sources, so their differences are not independent: the noise of the average over
    columns of several replicates is measured on such averages, and a column of one replicate adds its whole error.
    """
    columns = [column for column in table.columns if column in table.makes(main) and column in table.makes(arm)]
    if len(columns) < 2 or any(column not in found for column in columns):
        return None
    metric, value = table.metrics[0], sum(found[column].value for column in columns) / len(columns)
    several = [column for column in columns if found[column].seeds > 1]
    mine, theirs = (table.by_seed(one, several, metric.key) for one in (main, arm))
    together = paired(mine, theirs, metric)
    own = _independent(table, Noise.of([distinct(table, several, metric)])) if several else noise
    if together is None or together[1] < 2 or not own.freedom or not noise.freedom:
        return Difference(value, float("nan"), min(found[column].seeds for column in columns))
    single = len(columns) - len(several)
    error = (len(several) * own.error(together[1]) + single * noise.error(1)) / len(columns)
    freedom = min(own.freedom, noise.freedom) if single else own.freedom
    return Difference(value, error, together[1], freedom)


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
    sign: int = 1,
    common: Sequence[str] | None = None,
) -> Gains:
    """The gains of ``main`` in ``means[arm][column]``; ``sign`` is that of the metric.

    Averages are over ``common``, by default all columns.
    """
    common = columns if common is None else common
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
