"""Settings that a table has chosen on validation images: arms are called ``ROW@VARIANT``, the best variant wins."""

from __future__ import annotations

from dataclasses import dataclass

from .table import Table

MARK = "@"
CONDITIONED = "_conditioned"


@dataclass(frozen=True)
class Variant:
    """An arm of a sweep: its score, a mean over all columns, higher is better, and its rate of fine-tuning."""

    arm: str
    score: float
    lr: float | None


def row_of(arm: str) -> str:
    """The row that an arm is a variant of."""
    return arm.partition(MARK)[0]


def variants(table: Table) -> dict[str, list[Variant]]:
    """{row: its variants, by their rates}, of those that were measured in every column that they can make."""
    metric, found = table.metrics[0], dict[str, list[Variant]]()
    for arm in table.arms:
        columns, means = table.makes(arm), table.means(arm, metric.key)
        if MARK not in arm or any(column not in means for column in columns):
            continue
        mean = sum(means[column] for column in columns) / len(columns)
        lr = table.cells_of(arm)[0].recipe.get("lr")
        found.setdefault(row_of(arm), []).append(Variant(arm, metric.sign * mean, lr))
    return {row: sorted(ones, key=lambda one: one.lr or 0.0) for row, ones in found.items()}


def chosen(table: Table) -> dict[str, Variant]:
    """{row: its best variant} of a sweep."""
    return {row: best(ones) for row, ones in variants(table).items()}


def best(ones: list[Variant]) -> Variant:
    """The first of the highest score."""
    return max(ones, key=lambda one: one.score)


def chosen_for(arm: str, found: dict[str, list[Variant]]) -> list[Variant]:
    """What a sweep has chosen for an arm; for a conditioned one the choice for the same start, then its own."""
    row = row_of(arm)
    rows = dict.fromkeys((row.removesuffix(CONDITIONED), row))
    return [best(found[row]) for row in rows if found.get(row)]


def is_at_edge(ones: list[Variant]) -> bool:
    """Whether the best rate is the lowest or the highest that was tried; never where one rate was."""
    rates = [one.lr for one in ones]
    return len(set(rates)) > 1 and best(ones).lr in (rates[0], rates[-1])
