"""Who wins where, by how much, and how sure that is: ours against every other arm (:mod:`sweet.results.paired`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from sweet.tasks.registry import METRICS

from .paired import Difference, difference, mean_and_spread
from .read import BenchTable

VERDICTS = {"gain": "wins", "no gain": "is level", "worse": "loses", "one seed": "has one seed"}
SCORES = (("gain", "win"), ("no gain", "tie"), ("worse", "loss"), ("one seed", "single seed"))
AVERAGE = "average"
PLAIN = "sweet_prefix"  # the paper's own slice of its own template


@dataclass(frozen=True)
class Comparison:
    """Ours against all other arms in one metric: {arm: {size or "average": difference}}, whatever could be paired.

    "average" is there where both were measured at every size that all arms can make, on a common seed.
    """

    table: BenchTable
    ours: str
    metric: str
    against: Mapping[str, Mapping[str, Difference]]

    @cached_property
    def rivals(self) -> list[str]:
        return [arm for arm in self.table.rivals if arm in self.against]

    @cached_property
    def variants(self) -> list[str]:
        return [arm for arm in self.against if arm not in self.rivals]

    @cached_property
    def strongest(self) -> str | None:
        """The rival that ours gains least on, on average over sizes, of those measured at half as many as any or more.

        Sizes count only with several seeds, where any rival has such.
        """
        found = {arm: [*self._by_size(arm).values()] for arm in self.rivals}
        several = {arm: [one for one in differences if one.seeds > 1] for arm, differences in found.items()}
        counted = several if any(several.values()) else found
        most = max(map(len, counted.values()), default=0)
        gains = {arm: mean_and_spread([d.value for d in ds])[0] for arm, ds in counted.items() if 2 * len(ds) >= most}
        return min(gains, key=lambda arm: gains[arm], default=None)

    def decided(self) -> list[Difference]:
        """The differences to rivals at each size; rivals that are one and the same start there count once."""
        found: dict[tuple[str, tuple[tuple[int, float], ...]], Difference] = {}
        for arm in self.rivals:
            for size, one in self._by_size(arm).items():
                found.setdefault((size, (*self.table.values(arm, size, self.metric).items(),)), one)
        return [*found.values()]

    def sizes_of(self, arm: str, verdict: str) -> list[str]:
        """Sizes at which a verdict falls, the largest difference first."""
        found = {size: one for size, one in self._by_size(arm).items() if one.verdict == verdict}
        return sorted(found, key=lambda size: -abs(found[size].value))

    def _by_size(self, arm: str) -> dict[str, Difference]:
        return {size: one for size, one in self.against[arm].items() if size != AVERAGE}


def compare(table: BenchTable, metric: str | None = None, ours: str | None = None) -> Comparison | None:
    """Ours against every arm that shares a seed and a size with it; None where there is nothing to compare."""
    metric, ours = metric or table.metrics[0], ours or table.ours
    if ours is None:
        return None
    against = {}
    for arm in table.arms:
        found = {size: one for size in table.sizes if (one := _difference(table, ours, arm, [size], metric))}
        if arm == ours or not found:
            continue
        average = _difference(table, ours, arm, table.common, metric) if len(table.common) > 1 else None
        against[arm] = found | ({AVERAGE: average} if average else {})
    return Comparison(table, ours, metric, against) if against else None


def averaged(table: BenchTable, arm: str, sizes: Sequence[str], metric: str) -> dict[int, float]:
    """{seed: mean over ``sizes``} of the seeds that were measured at all of them."""
    found = [table.values(arm, size, metric) for size in sizes]
    seeds = set.intersection(*(set(values) for values in found)) if found else set()
    return {seed: sum(values[seed] for values in found) / len(found) for seed in sorted(seeds)}


def gains_over_best(means: Mapping[str, Mapping[str, float]], ours: str, sizes: Sequence[str], *, higher: bool = True,
                    rivals: Sequence[str], common: Sequence[str] | None = None) -> dict[str, float]:  # fmt: skip
    """Ours minus the best rival at each size, and two averages of it (methods 0, check 5).

    ``means[arm][size]``. "mean gain" is the mean over sizes of the gains on each size's best rival; "gain in average",
    the paper's, is ours on average minus the rival that is best on average. Both are over ``common``, default all
    sizes, and only where every arm has every one of them.
    """
    common = sizes if common is None else common
    sign = 1 if higher else -1
    gains = {
        size: sign * means[ours][size] - max(sign * means[arm][size] for arm in rivals if size in means[arm])
        for size in sizes
        if size in means[ours] and any(size in means[arm] for arm in rivals)
    }
    if gains and common and all(size in means[arm] for arm in [ours, *rivals] for size in common):
        average = {arm: sign * sum(means[arm][size] for size in common) / len(common) for arm in [ours, *rivals]}
        gains["mean gain"] = sum(gains[size] for size in common) / len(common)
        gains["gain in average"] = average[ours] - max(average[arm] for arm in rivals)
    return gains


def cell_means(table: BenchTable, metric: str) -> dict[str, dict[str, float]]:
    """{arm: {size: mean over seeds}} of what was measured."""
    found = {
        arm: {size: table.values(arm, size, metric) for size in table.sizes if table.values(arm, size, metric)}
        for arm in table.arms
    }
    return {arm: {size: mean_and_spread([*v.values()])[0] for size, v in row.items()} for arm, row in found.items()}


def headline(comparison: Comparison) -> str:
    """One sentence: ours against the strongest rival, on average and at which sizes."""
    rival = comparison.strongest
    table, ours = comparison.table, comparison.ours
    if rival is None:
        return f"{ours} was measured beside its own variants only; there is no rival to compare with."
    among = (
        f"the strongest of {len(comparison.rivals)} {table.others}" if len(comparison.rivals) > 1 else "its only rival"
    )
    rows = comparison.against[rival]
    parts = [_clause(comparison, rival, verdict) for verdict in VERDICTS]
    text = f"Against {rival}, {among} here, {ours} {_listed([part for part in parts if part])}"
    if AVERAGE in rows:
        text += f"; on average over {len(table.common)} sizes {_average(rows[AVERAGE], comparison.metric)}"
    return text + "."


def sentences(table: BenchTable) -> list[str]:
    """What a table shows, in at most four sentences."""
    comparison = compare(table)
    if comparison is None:
        told = table.told
        why = f": {told.ours} was not measured" if told and told.ours not in table.arms else ""
        return [f"Nothing to compare yet{why}."]
    counted = [tally(comparison)] if comparison.rivals else []
    return [headline(comparison), *counted, *plainly(comparison), noise(comparison)]


def plainly(comparison: Comparison) -> list[str]:
    """One sentence on the paper's own slice, where it is a row beside ours; ours has changes of the method in it."""
    if comparison.ours == PLAIN or PLAIN not in comparison.against or not comparison.rivals:
        return []
    plain = compare(comparison.table, comparison.metric, PLAIN)
    assert plain is not None
    counts = Counter(one.verdict for one in plain.decided())
    said = ", ".join(f"{counts[key]} {_plural(word, counts[key])}" for key, word in SCORES if counts[key])
    text = f"The paper's own slice ({PLAIN}), without our changes, against the same rivals: {said}"
    average = plain.against.get(comparison.strongest or "", {}).get(AVERAGE)
    if average:
        digits, unit = METRICS[plain.metric].digits, METRICS[plain.metric].unit
        text += f"; {average.text(digits)} {unit} against {comparison.strongest} on average ({average.verdict})"
    return [f"{text}."]


def tally(comparison: Comparison) -> str:
    """One sentence: wins, ties and losses over all rivals and sizes, and how many of them a t test sees."""
    decided = comparison.decided()
    counts = Counter(one.verdict for one in decided)
    seen = [one for one in decided if one.verdict in ("gain", "worse")]
    total = sum(counts.values())
    said = [
        f"{counts[key]} {_plural(word, counts[key])}" for key, word in SCORES if counts[key] or key in ("gain", "worse")
    ]
    text = f"All {comparison.table.others} and sizes: {_listed(said)} of {total}"
    text += " (a win or loss is two standard errors or more)"
    if seen:
        text += f"; a paired t test at 95 % sees {sum(one.sure for one in seen)} of the {len(seen)}"
    return text + "."


def noise(comparison: Comparison) -> str:
    """One sentence: how far runs of one cell lie apart, against which differences are to be seen."""
    table, metric = comparison.table, METRICS[comparison.metric]
    found = [list(table.values(arm, size, comparison.metric).values()) for arm, size in table.cells]
    spreads = [mean_and_spread(values)[1] for values in found if len(values) > 1]
    if not spreads:
        return "Every cell has one seed: nothing is known of the spread."
    middle = f"{median(spreads):.{metric.digits}f} {metric.unit}"
    return (
        f"Runs that differ by their seed alone spread by {middle} (median standard deviation of {len(spreads)} cells)."
    )


def _difference(table: BenchTable, ours: str, arm: str, sizes: Sequence[str], metric: str) -> Difference | None:
    """Over the mean of ``sizes``, paired by seed; None without a common seed."""
    mine, theirs = (averaged(table, one, sizes, metric) for one in (ours, arm))
    return difference(mine, theirs, METRICS[metric])


def _clause(comparison: Comparison, rival: str, verdict: str) -> str:
    """``wins at L6H6 and L12H3 (by 2.1 to 4.8 points)``; nothing where the verdict does not fall."""
    sizes = comparison.sizes_of(rival, verdict)
    if not sizes:
        return ""
    metric = METRICS[comparison.metric]
    largest, least = (
        f"{abs(comparison.against[rival][size].value):.{metric.digits}f}" for size in (sizes[0], sizes[-1])
    )
    clause = f"{VERDICTS[verdict]} at {_listed(sizes)}"
    if verdict == "one seed":
        shown = [comparison.against[rival][size].text(metric.digits) for size in sizes]
        clause += f" ({', '.join(shown)} {metric.unit})"
    elif verdict in ("gain", "worse"):
        clause += f" (by {least if least == largest else f'{least} to {largest}'} {metric.unit})"
    return clause


def _average(one: Difference, metric: str) -> str:
    word = {"gain": "ahead", "worse": "behind"}.get(one.verdict)
    amount = f"{one.text(METRICS[metric].digits)} {METRICS[metric].unit}"
    if word:
        return f"it is {word} ({amount})"
    return f"one seed shows {amount}" if one.verdict == "one seed" else f"the two are level ({amount})"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _plural(word: str, number: int) -> str:
    return word if number == 1 else word + ("es" if word.endswith("s") else "s")
