"""One line of tiles, a tile for each comparison of the main arm with a baseline, and its losses in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sweet.results.compare import AVERAGE, Differences
from sweet.results.paired import Difference, Verdict
from sweet.results.sentences import listed, noise

STYLES: dict[Verdict, str] = {"gain": "win", "no gain": "tie", "worse": "loss", "one seed": "single"}
WORDS = {"win": ("win", "wins"), "tie": ("tie", "ties"), "loss": ("loss", "losses"), "single": ("of one seed",) * 2}
NAMED = 6  # arms that losses are described of


@dataclass(frozen=True)
class Tile:
    """A comparison: the style of its verdict, how strong its colour is (0 to 1), and what it says when touched."""

    style: str
    alpha: float
    title: str


@dataclass(frozen=True)
class Strip:
    """Tiles from the largest win to the largest loss, what they count, and ``losses`` in words.

    ``other`` is what to call one that ``main`` is compared with.
    """

    main: str
    other: str
    tiles: tuple[Tile, ...]
    counted: str
    losses: str


def strip(found: Differences) -> Strip | None:
    """Of the comparisons with baselines; None where there is none. Baselines that are the same weights count once."""
    decided = found.decided()
    named = {
        id(one): f"{arm} at {column}"
        for arm in reversed(found.baselines)
        for column, one in found.by_column(arm).items()
    }
    if not decided:
        return None
    largest = max(abs(one.value) for one in decided) or 1
    digits, unit = found.metric.digits, found.metric.unit
    tiles = tuple(
        Tile(
            STYLES[one.verdict],
            strength(one, largest),
            f"{found.main} minus {named[id(one)]}: {one.text(digits)} {unit} ({one.verdict})",
        )
        for one in sorted(decided, key=lambda one: (one.verdict == "one seed", -one.value))
    )
    counts = Counter(tile.style for tile in tiles)
    counted = ", ".join(
        f"{counts[style]} {one if counts[style] == 1 else more}"
        for style, (one, more) in WORDS.items()
        if counts[style] or style != "single"
    )
    return Strip(found.main, found.table.other, tiles, counted, losses(found))


def strength(one: Difference, largest: float) -> float:
    """How strong the colour of a difference is, 0 to 1."""
    return round(0.08 + 0.72 * (abs(one.value) / largest) ** 0.7, 2)


def losses(found: Differences) -> str:
    """Which arms are better than the main one, what they are, where and by how much, and how much that is."""
    about = {arm.name: arm.about for arm in found.table.spec.arms}
    digits, unit = found.metric.digits, found.metric.unit
    better = {arm: columns for arm in found.against if (columns := found.columns_of(arm, "worse"))}
    if not better:
        return f"{found.main} loses to no arm of this table."
    clauses = []
    for arm, columns in [*better.items()][:NAMED]:
        amounts = sorted(abs(found.against[arm][column].value) for column in columns)
        span = " to ".join(dict.fromkeys(f"{amount:.{digits}f}" for amount in (amounts[0], amounts[-1])))
        meant = about.get(arm, "")
        whose = f" ({meant})" if meant and not meant.startswith("the same") else ""  # as the arm before it
        all_of = "every size" if len(columns) == len(found.by_column(arm)) > 1 else listed(columns)
        clauses.append(f"{arm}{whose} at {all_of}, by {span} {unit}")
    more = f"; and {len(better) - NAMED} more arms" if len(better) > NAMED else ""
    ours = [arm for arm in better if arm not in found.baselines]
    kind = ""
    if found.table.spec.ablation:
        kind = f" Each arm here changes one choice of {found.main}: where it wins, the other choice is better."
    elif len(ours) == len(better):
        kind = " All are variants of our own method."
    return f"Better than {found.main}: {'; '.join(clauses)}{more}.{kind} {_scale(found)}"


def _scale(found: Differences) -> str:
    """What a loss is to be seen against: the gain over random weights, and how far runs spread."""
    metric, random = found.metric, found.against.get("random", {}).get(AVERAGE)
    lead = f"Against random weights: {random.text(metric.digits)} {metric.unit} on average. " if random else ""
    return f"{lead}{noise(found)}"
