"""What a table shows, in at most four sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from sweet.tasks.registry import Metric

from .compare import AVERAGE, Differences, compare
from .paired import Difference, Verdict
from .table import Table

VERBS: dict[Verdict, str] = {"gain": "wins", "no gain": "is level", "worse": "loses", "one seed": "has one seed"}
SCORES: dict[Verdict, str] = {"gain": "win", "no gain": "tie", "worse": "loss", "one seed": "single seed"}
PLAIN = "sweet_prefix"  # the paper's own slice of its own template


def sentences(table: Table) -> list[str]:
    """Who wins where, how often, how the paper's own slice does, and how far runs spread; the first says most."""
    found = compare(table)
    if found is None:
        return [f"Nothing to compare yet{'' if table.main else f': {table.spec.main} was not measured'}."]
    counted = [tally(found)] if found.baselines else []
    return [headline(found), *counted, *plainly(found), noise(found)]


def headline(found: Differences) -> str:
    """The main arm against the strongest baseline, on average and in which columns."""
    table, main, strongest = found.table, found.main, found.strongest
    if strongest is None:
        return f"{main} was measured beside its own variants only; there is no baseline to compare it with."
    number = len(found.baselines)
    among = f"the strongest of {number} {table.other}s" if number > 1 else f"its only {table.other}"
    clauses = [clause for verdict in VERBS if (clause := _clause(found, strongest, verdict))]
    text = f"Against {strongest}, {among} here, {main} {listed(clauses)}"
    if AVERAGE in found.against[strongest]:
        text += f"; on average over {_columns(table)} {_average(found.against[strongest][AVERAGE], found.metric)}"
    return text + "."


def tally(found: Differences) -> str:
    """Wins, ties and losses over all baselines and columns, and how many of them a t test sees."""
    decided = found.decided()
    counts = Counter(one.verdict for one in decided)
    seen = [one for one in decided if one.verdict in ("gain", "worse")]
    counted = [_counted(counts, key) for key in SCORES if counts[key] or key in ("gain", "worse")]
    text = f"All {found.table.other}s and sizes: {listed(counted)} of {len(decided)}"
    text += " (a win or a loss is two standard errors or more)"
    if seen:
        text += f"; a paired t test at 95 % sees {sum(one.sure for one in seen)} of the {len(seen)}"
    return text + "."


def plainly(found: Differences) -> list[str]:
    """One sentence on the paper's own slice, where it stands beside the main arm, which has our changes in it."""
    if found.main == PLAIN or PLAIN not in found.against or not found.baselines:
        return []
    plain = compare(found.table, PLAIN)
    assert plain is not None
    counts = Counter(one.verdict for one in plain.decided())
    counted = ", ".join(_counted(counts, key) for key in SCORES if counts[key])
    text = f"The paper's own slice ({PLAIN}), without our changes, against the same {found.table.other}s: {counted}"
    average = plain.against.get(found.strongest or "", {}).get(AVERAGE)
    if average:
        text += f"; {_amount(average, plain.metric)} against {found.strongest} on average ({average.verdict})"
    return [f"{text}."]


def noise(found: Differences) -> str:
    """How far runs of one cell lie apart, against which differences are to be seen."""
    table, metric = found.table, found.metric
    means = [table.mean(arm, column, metric.key) for arm, column in table.cells]
    spreads = [mean.spread for mean in means if mean and mean.seeds > 1]
    if not spreads:
        return "Every cell has one seed: the spread between seeds is not known."
    middle = f"{metric.text(median(spreads))} {metric.unit}"
    return (
        f"Runs that differ only in their seed spread by {middle} (median standard deviation of {len(spreads)} cells)."
    )


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _clause(found: Differences, arm: str, verdict: Verdict) -> str:
    """``wins at L6H6 and L12H3 (by 2.1 to 4.8 points)``; nothing where no column has the verdict."""
    columns, metric = found.columns_of(arm, verdict), found.metric
    if not columns:
        return ""
    differences = [found.against[arm][column] for column in columns]
    clause = f"{VERBS[verdict]} at {listed(columns)}"
    if verdict == "one seed":
        clause += f" ({', '.join(one.text(metric.digits) for one in differences)} {metric.unit})"
    elif verdict != "no gain":
        largest, least = (metric.text(abs(differences[place].value)) for place in (0, -1))
        clause += f" (by {least if least == largest else f'{least} to {largest}'} {metric.unit})"
    return clause


def _average(one: Difference, metric: Metric) -> str:
    amount = _amount(one, metric)
    if one.verdict == "one seed":
        return f"one seed shows {amount}"
    word = {"gain": "it is ahead", "worse": "it is behind"}.get(one.verdict, "the two are level")
    return f"{word} ({amount})"


def _amount(one: Difference, metric: Metric) -> str:
    return f"{one.text(metric.digits)} {metric.unit}"


def _columns(table: Table) -> str:
    several = len({table.column(name).set for name in table.common}) > 1
    return f"{len(table.common)} {'data sets' if several else 'sizes'}"


def _counted(counts: Counter[Verdict], verdict: Verdict) -> str:
    number, word = counts[verdict], SCORES[verdict]
    return f"{number} {word if number == 1 else word + ('es' if word.endswith('s') else 's')}"
