"""A table of results as blocks of text, which every renderer shows: no renderer computes or rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweet.tasks.registry import Metric

from .choices import row_of
from .compare import AVERAGE, Differences, Gains, compare, gains_over_best
from .costs import arm_costs, budget_note, targets
from .paired import Difference, Verdict, signed
from .paper import paper, paper_table
from .records import Role
from .sentences import listed
from .table import Table, unique

NONE = "-"
KINDS: dict[Role, str] = {
    "baseline": "baseline",
    "conditioned": "baseline, conditioned",
    "reference": "line to reach",
    "paper": "the paper's method",
    "ours": "ours",
}
COUNTED: dict[Verdict, str] = {
    "gain": "wins at",
    "no gain": "not significant at",
    "worse": "loses at",
    "one seed": "one seed",
}
INIT_SECONDS = Metric("init_seconds", "one initialisation, s", higher_is_better=False)


@dataclass(frozen=True)
class Grid:
    """Heads and lines of text, the first of each line is what the line is about."""

    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, str | None]]) -> Grid:
        """From rows with the same keys; None is shown as a dash."""
        found = [*rows]
        heads = tuple(found[0]) if found else ()
        return cls(heads, tuple(tuple(row[head] or NONE for head in heads) for row in found))

    def rows(self) -> list[dict[str, str]]:
        """A mapping for each line, for JSON."""
        return [dict(zip(self.heads, line, strict=True)) for line in self.lines]


@dataclass(frozen=True)
class Block:
    """A titled grid. ``folded`` is opened by who wants it; ``words`` are set to the left."""

    title: str
    grid: Grid
    note: str = ""
    folded: bool = False
    words: bool = False


def blocks(table: Table, failed: Collection[tuple[str, str]] = ()) -> list[Block]:
    """Everything that a table says in numbers, as it is read; empty blocks are left out.

    ``failed`` are (arm, column) that could not be measured.
    """
    found = compare(table)
    result = [Block("What the arms are", arm_grid(table), words=True)]
    for metric in table.metrics:
        grid, note = score_grid(table, metric, failed), ""
        if any(paper().label in line[0] for line in grid.lines):
            printed = paper_table(table.spec.table, table.task)
            note = f"Rows of the paper ({paper().paper}): {printed.title}." if printed else ""
        result.append(Block(capital(metric.label), grid, note, folded=metric != table.metrics[0]))
    if table.spec.shows_costs:
        result.append(Block(capital(INIT_SECONDS.label), score_grid(table, INIT_SECONDS), folded=True))
    if found is not None:
        label = found.metric.label
        result.append(Block(f"Gain over the best {table.other}, {label}", gain_grid(found)))
        result.append(Block(f"Wins, ties and losses, {label}", record_grid(found), words=True))
        result.append(Block(f"Paired differences, {label}", paired_grid(found), folded=True))
    result.append(Block("Sizes of the targets", size_grid(table), folded=True))
    note = "Seconds and unlabelled images of an arm are medians over seeds, averaged over columns."
    result.append(Block("Cost", cost_grid(table), f"{note} {budget_note(table)}".strip()))
    return [block for block in result if block.grid.lines]


def arm_grid(table: Table) -> Grid:
    """What the arms are, the variants of a row once."""
    known = {row_of(arm.name): arm.about for arm in table.spec.arms if arm.name in table.arms and arm.about}
    return Grid.of({"arm": arm, "what it is": about} for arm, about in known.items())


def score_grid(table: Table, metric: Metric, failed: Collection[tuple[str, str]] = ()) -> Grid:
    """Mean ± standard deviation (seeds) of each cell, and averages; then the paper's rows of the same columns."""
    columns, rows, broken = table.shown({column for _, column in failed}), [], {arm for arm, _ in failed}
    for arm in (one.name for one in table.spec.arms):
        means = table.means(arm, metric.key)
        if not means and arm not in broken:
            continue
        row = {"arm": arm}
        for column in columns:
            mean = table.mean(arm, column, metric.key)
            row[column] = mean.text(metric) if mean else "failed" if (arm, column) in failed else NONE
        rows.append(row | _average(table, means, metric, arm))
    printed = paper_table(table.spec.table, table.task)
    for name, found in printed.means(metric.key).items() if printed else ():
        if any(column in found for column in table.columns):
            row = {"arm": f"{name} ({paper().label})"}
            row |= {column: metric.text(found[column]) if column in found else NONE for column in columns}
            rows.append(row | _average(table, found, metric))
    return Grid.of(rows)


def ranking(found: Differences) -> Grid:
    """Every arm by its average, the best first, and how far the main arm is ahead of it, on average as well."""
    table, metric = found.table, found.metric
    averages = {arm: table.average(table.means(arm, metric.key), arm) for arm in table.arms}
    known = {arm: value for arm, value in averages.items() if value is not None}
    order = sorted(known, key=lambda arm: known[arm], reverse=metric.higher_is_better)
    order += [arm for arm in table.arms if arm not in known]
    kinds = {arm.name: KINDS[arm.role] for arm in table.spec.arms}
    rows = []
    for arm in order:
        ahead = found.against.get(arm, {}).get(AVERAGE)
        row = {"arm": arm, "what it is": kinds[arm]} | _average(table, table.means(arm, metric.key), metric, arm)
        rows.append(row | {f"{found.main} minus it": _judged(ahead, metric)})
    return Grid.of(rows)


def gain_grid(found: Differences) -> Grid:
    """The main arm and the paper's slice minus the best baseline, here and in the paper; both averages of it."""
    table, metric, head = found.table, found.metric, f"gain over the best {found.table.other}"
    rows = []
    means = {arm: table.means(arm, metric.key) for arm in table.arms}
    for arm in (found.main, *found.of_role("paper")) if found.baselines else ():
        if arm in means:
            gains = gains_over_best(
                means, arm, table.columns, baselines=found.baselines, sign=metric.sign, common=table.common
            )
            rows.append({head: arm} | _gains(gains, table.columns, metric))
    printed = paper_table(table.spec.table, table.task)
    means = printed.means(metric.key) if printed else {}
    if printed and len(means) == len(printed.rows) and set(printed.columns) & set(table.columns):
        ours = paper().ours
        others = [name for name in means if name != ours]
        gains = gains_over_best(means, ours, printed.columns, baselines=others, sign=metric.sign, common=table.common)
        rows.append({head: f"{ours} ({paper().label})"} | _gains(gains, table.columns, metric))
    return Grid.of(rows)


def record_grid(found: Differences) -> Grid:
    """In which columns the main arm wins, ties and loses against each other arm, and on average."""
    rows = []
    for arm in (*found.baselines, *found.others, *found.variants):
        row = {f"{found.main} against": arm}
        row |= {word: ", ".join(found.columns_of(arm, verdict)) or NONE for verdict, word in COUNTED.items()}
        rows.append(row | {"on average": _judged(found.against[arm].get(AVERAGE), found.metric)})
    return Grid.of(rows)


def paired_grid(found: Differences) -> Grid:
    """Every paired difference with its 95 % interval."""

    def text(one: Difference | None) -> str:
        return f"{one.text(found.metric.digits)} {one.verdict}" if one else NONE

    columns = [*found.table.columns, AVERAGE]
    return Grid.of(
        {f"{found.main} minus": arm} | {column: text(found.against[arm].get(column)) for column in columns}
        for arm in (*found.baselines, *found.others, *found.variants)
    )


def size_grid(table: Table) -> Grid:
    """Parameters and FLOPs of the targets."""
    return Grid.of(
        {"target": column, "parameters": f"{one.params:,}", "FLOPs of one image": f"{one.flops:,}"}
        for column, one in targets(table).items()
    )


def cost_grid(table: Table) -> Grid:
    """What each arm took."""
    return Grid.of(
        {
            "arm": cost.arm,
            "source": cost.source,
            "pre-training images": _fixed(cost.images),
            "seconds": _fixed(cost.seconds),
            "PFLOPs": _fixed(cost.pflops, 4),
            "init, s": _fixed(cost.init_seconds, 3),
            "unlabelled images": _fixed(cost.init_images),
            "fine-tuning, s": _fixed(cost.finetune_seconds),
        }
        for cost in arm_costs(table)
    )


def description(table: Table) -> dict[str, str]:
    """What a reader has to know before the numbers."""
    cells = [next(cell for (_, place), cell in table.cells.items() if place == name) for name in table.columns]
    seeds = sorted({len(cell.runs) for cell in table.cells.values()})
    found = {
        "data": listed(unique(cell.data or None for cell in cells)),
        "labelled images": listed(unique(_fixed(cell.n_train) for cell in cells)),
        "test images": listed(unique(_fixed(cell.test_images) for cell in cells)),
        "classes": listed(unique(_fixed(cell.classes) for cell in cells)),
        "chance": listed(unique(f"{cell.chance_top1:g} %" for cell in cells if cell.chance_top1)),
        "images of fine-tuning": listed(unique(_fixed(cell.runs[0].images_seen) for cell in cells)),
        "sources": f"L{table.config.depth}H{table.config.heads}" if table.config else "",
        "seeds": " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
        + (", one source" if table.spec.one_source else ""),
        "runs": str(len(table.runs)),
        "measured on": _machines(table),
        "averages over": _averaged(table),
        "not measured yet": ", ".join(table.open_columns),
    }
    return {key: value for key, value in found.items() if value}


def _averaged(table: Table) -> str:
    if table.spec.validation:
        return "the sizes that an arm can make"
    return ", ".join(table.common) if table.common != table.columns else ""


def _machines(table: Table) -> str:
    """The kinds of machine, and of several how many runs each."""
    counted = Counter(run.environment.get("gpu") or "CPU" for run in table.runs if run.environment)
    return listed([f"{name} ({count} runs)" if len(counted) > 1 else name for name, count in counted.items()])


def _gains(gains: Gains, columns: Sequence[str], metric: Metric) -> dict[str, str]:
    values = {column: gains.columns.get(column) for column in columns}
    values |= {"mean gain": gains.mean, "gain in average": gains.in_average}
    return {key: NONE if value is None else signed(value, metric.digits) for key, value in values.items()}


def _judged(one: Difference | None, metric: Metric) -> str:
    return f"{one.text(metric.digits)}, {one.verdict}" if one else NONE


def _average(table: Table, means: Mapping[str, float], metric: Metric, arm: str = "") -> dict[str, str]:
    average = table.average(means, arm)
    return {AVERAGE: NONE if average is None else metric.text(average)}


def _fixed(value: float | None, digits: int = 0) -> str | None:
    return None if value is None else f"{value:,.{digits}f}"


def capital(label: str) -> str:
    """A metric's label as a heading."""
    return label[:1].upper() + label[1:] if label[1:2].islower() else label  # mIoU is a name
