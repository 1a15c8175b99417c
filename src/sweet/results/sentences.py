"""What a table shows, in a few sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from .choices import MARK, chosen
from .compare import AVERAGE, Differences, compare
from .costs import break_even
from .paired import Verdict, sampling_interval
from .table import Table

NO_GAIN = "no significant difference"
VERBS: dict[Verdict, str] = {
    "gain": "wins",
    "no gain": f"shows {NO_GAIN}",
    "worse": "loses",
    "one seed": "has one seed",
}
SCORES: dict[Verdict, str] = {"gain": "win", "no gain": "tie", "worse": "loss", "one seed": "single seed"}


def sentences(table: Table) -> list[str]:
    """Ours, then the paper's method, against each kind of baseline; where neither leads; costs and noise.

    The first says most.
    """
    if table.spec.validation:
        return [settings(table)]
    found = compare(table)
    if found is None:
        return [f"Nothing to compare yet{'' if table.main else f': {table.spec.main} was not measured'}."]
    first = [headline(found), *([tally(found)] if found.baselines else []), *choices(found)]
    more = [*conditioned(found), *references(found), *papers(found), *not_ahead(found), *cheaper(table)]
    return [*first, *more, noise(found)]


def settings(table: Table) -> str:
    """What a sweep has chosen for each row."""
    metric, found = table.metrics[0], chosen(table)
    if not found:
        return "Nothing is chosen yet."
    rows = []
    for row, one in found.items():
        makes = table.makes(one.arm)
        where = "" if {*table.columns} <= {*makes} else f" at {listed(makes)}"
        rows.append(f"{row} {one.arm.partition(MARK)[2]} ({metric.text(abs(one.score))}{where})")
    columns = listed(table.columns)
    return f"Chosen on held-out training images, with the mean {metric.label} at {columns}: {listed(rows)}."


def headline(found: Differences) -> str:
    """The main arm against the strongest baseline, on average and in which columns."""
    table, main, strongest = found.table, found.main, found.strongest
    if strongest is None:
        return f"{main} was measured beside its own variants only; there is no baseline to compare it with."
    number = len(found.baselines)
    among = f"the strongest of {number} {table.other}s" if number > 1 else f"its only {table.other}"
    text = f"Against {strongest}, {among} here, {main} {_clauses(found, strongest)}"
    if AVERAGE in found.against[strongest]:
        text += f"; on average over {_columns(found, strongest)} {_average(found, strongest)}"
    return text + "."


def tally(found: Differences) -> str:
    """Wins, ties and losses over all baselines and columns."""
    how = "a win or a loss: p below 5 % after Holm's correction"
    return f"All {found.table.other}s and sizes: {_tally(found)} ({how})."


def choices(found: Differences) -> list[str]:
    """One sentence on what each other choice of an ablation is worth on average."""
    averages = {arm: row[AVERAGE] for arm, row in found.against.items() if AVERAGE in row}
    if not found.table.spec.ablation or not averages:
        return []
    shown = [f"{arm} {one.text(found.metric.digits)} ({one.verdict})" for arm, one in averages.items()]
    columns = _columns(found, next(iter(averages)))
    return [f"On average over {columns}, {found.main} minus each other arm: {listed(shown)}."]


def conditioned(found: Differences) -> list[str]:
    """One sentence on baselines that were conditioned as ours is."""
    arms = found.of_role("conditioned")
    strongest = found.least(arms)
    if strongest is None:
        return []
    text = f"Against baselines conditioned as ours is: {_tally(found, arms)}; the strongest is {strongest}"
    if AVERAGE in found.against[strongest]:
        text += f", on average over {_columns(found, strongest)} {_average(found, strongest)}"
    return [f"{text}."]


def references(found: Differences) -> list[str]:
    """One sentence on lines to reach, such as the size pre-trained itself."""
    parts = []
    for arm in found.of_role("reference"):
        shown = _average(found, arm) if AVERAGE in found.against[arm] else _clauses(found, arm)
        parts.append(f"against {arm} {shown}")
    return [f"Lines to reach: {'; '.join(parts)}."] if parts else []


def papers(found: Differences) -> list[str]:
    """A sentence for each row that is the paper's method as it is written, against the published baselines."""
    result = []
    for arm in found.of_role("paper"):
        own = compare(found.table, arm)
        if own is None or not own.baselines:
            continue
        text = f"The paper's method ({arm}) against the same {found.table.other}s: {_tally(own)}"
        strongest = own.strongest
        if strongest and AVERAGE in own.against[strongest]:
            text += f"; on average over {_columns(own, strongest)} {_average(own, strongest)} against {strongest}"
        result.append(f"{text}.")
    return result


def not_ahead(found: Differences) -> list[str]:
    """One sentence on the columns in which the main arm leads some arm of others by nothing that can be seen."""
    parts = []
    for column in found.table.columns:
        rows = {arm: found.against[arm].get(column) for arm in (*found.baselines, *found.others)}
        open_ = {arm: one for arm, one in rows.items() if one and one.verdict in ("no gain", "worse")}
        if open_:
            shown = [f"{arm} {one.text(found.metric.digits)}" for arm, one in open_.items()]
            parts.append(f"{column} ({', '.join(shown)})")
    if not parts or found.table.spec.ablation:
        return []
    return [f"Where {found.main} is not ahead of every other method: {'; '.join(parts)}."]


def cheaper(table: Table) -> list[str]:
    """One sentence on how many sizes a source must serve to be cheaper than pre-training each of them."""
    found = break_even(table)
    if found is None:
        return []
    own = f"each of {len(found.sizes)} sizes pre-trained itself {found.own.each:.3g} on average"
    text = f"The source of {table.main} took {found.source.once:.3g} PFLOPs, {own}"
    if found.needed is None:
        return [f"{text}: one source never costs less."]
    return [f"{text}: one source is cheaper from {found.needed} {'size' if found.needed == 1 else 'sizes'} on."]


def noise(found: Differences) -> str:
    """How far runs lie apart, against which differences are to be seen, and what the test set itself leaves open."""
    metric, pooled = found.metric, found.noise
    if not pooled.freedom:
        return "Every cell has one seed: the spread between seeds is not known."
    spread = f"{metric.text(math.sqrt(pooled.variance))} {metric.unit}"
    text = f"Runs spread by {spread} beside what a replicate shares (standard deviation pooled over the table, "
    text += f"{pooled.freedom} degrees of freedom); ± is a 95 % interval."
    sampling = sampling_error(found)
    if sampling is not None:
        text += f" The choice of test images leaves ±{metric.text(sampling)} {metric.unit} open, the same for all arms."
    return text


def sampling_error(found: Differences) -> float | None:
    """The widest :func:`sampling_interval` of the main arm's accuracies; None for other metrics."""
    if found.metric.key != "top1":
        return None
    errors = []
    for column, value in found.table.means(found.main, "top1").items():
        images = found.table.cells[found.main, column].test_images
        if images:
            errors.append(sampling_interval(value, images))
    return max(errors, default=None)


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _tally(found: Differences, arms: Sequence[str] | None = None) -> str:
    """``3 wins and 1 tie of 4``."""
    decided = found.decided(arms)
    counts = Counter(one.verdict for one in decided)
    counted = [_counted(counts, key) for key in SCORES if counts[key] or key in ("gain", "worse")]
    return f"{listed(counted)} of {len(decided)}"


def _clauses(found: Differences, arm: str) -> str:
    return listed([clause for verdict in VERBS if (clause := _clause(found, arm, verdict))])


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


def _average(found: Differences, arm: str) -> str:
    one = found.against[arm][AVERAGE]
    amount = f"{one.text(found.metric.digits)} {found.metric.unit}"
    if one.verdict == "one seed":
        return f"one seed shows {amount}"
    word = {"gain": "it is ahead", "worse": "it is behind"}.get(one.verdict, NO_GAIN)
    return f"{word} ({amount})"


def _columns(found: Differences, arm: str) -> str:
    columns = [found.table.column(name) for name in found.by_column(arm)]
    sets, sizes = {one.set for one in columns}, {one.size for one in columns}
    return f"{len(columns)} {'sizes' if len(sets) == 1 else 'data sets' if len(sizes) == 1 else 'columns'}"


def _counted(counts: Counter[Verdict], verdict: Verdict) -> str:
    number, word = counts[verdict], SCORES[verdict]
    return f"{number} {word if number == 1 else word + ('es' if word.endswith('s') else 's')}"
