"""The figures of a table, one function each; a figure whose numbers are not there is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sweet.results.costs import crossing, pretraining_of, targets, totals
from sweet.results.paired import Mean
from sweet.results.records import Run
from sweet.results.table import Table
from sweet.tasks.registry import Metric
from sweet.template.sizes import Size

from .colours import mark
from .draw import INK, Drawing, apart, axes, drawing, log_axis
from .words import metric_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 12  # arms in one figure
BEFORE = {"init_mae_loss": "MAE loss, held-out images", "init_knn": "k-NN top-1, %"}


def figures(table: Table, name: str) -> list[Drawing]:
    """All figures that the numbers of a table allow; ids inside begin with ``name``."""
    makers: list[Callable[[Table, str], Iterable[Drawing]]] = [
        by_size, by_cost, by_pretraining, total_cost, from_template, before_tuning, curves
    ]  # fmt: skip
    return [one for i, make in enumerate(makers) for one in make(table, f"{name}{i}")]


def headline(table: Table, name: str) -> Drawing | None:
    """The main arm beside the best baseline and all others, in each column; None where it was not measured."""
    metric = table.metrics[0]
    if table.main is None:
        return next(iter(by_size(table, name)), None)
    arms, ax, labels = [arm for arm in shown_arms(table) if arm != table.main], axes(), []
    for x, column in enumerate(table.columns):
        found = {arm: mean for arm in arms if (mean := table.mean(arm, column, metric.key))}
        baselines = [arm for arm in found if arm in table.baselines]
        best = max(baselines, key=lambda arm: metric.sign * found[arm].value, default=None)
        for arm, mean in found.items():
            colour, marker = mark(arm)
            at = x - 0.4 + 0.4 * (arms.index(arm) + 0.5) / len(arms)
            ax.plot([at], [mean.value], marker, color=colour, alpha=1 if arm == best else 0.65, markeredgewidth=0)
            if arm == best:
                labels.append((x, mean.value, colour, "normal"))
        own = table.mean(table.main, column, metric.key)
        if own:
            colour, marker = mark(table.main)
            spread = None if math.isnan(own.spread) else own.spread
            ax.errorbar([x + 0.1], [own.value], spread, color=colour, marker=marker, markersize=7, capsize=2)
            labels.append((x, own.value, colour, "bold"))
    _values(ax, labels, metric)
    for arm in (table.main, *arms):
        colour, marker = mark(arm)
        ax.plot([], [], marker, color=colour, label=arm)
    ax.set_xlim(-0.5, len(table.columns) - 0.35)
    ax.set_xticks(range(len(table.columns)), [column.replace(" ", "\n") for column in table.columns])
    ax.grid(visible=False, axis="x")
    text = f"Means over seeds; the bar of {table.main} is the standard deviation. Values: {table.main} (bold) and the "
    return drawing(ax, name, f"{text}best {table.other} of each column.", y=metric_label(metric), columns=3)


def _values(ax: Axes, labels: Sequence[tuple[int, float, str, str]], metric: Metric) -> None:
    """(column, value, colour, weight) as text at the right of each column, none over another."""
    low, high = ax.get_ylim()
    for x in {label[0] for label in labels}:
        own = [label for label in labels if label[0] == x]
        heights = apart([value for _, value, _, _ in own], 0.055 * (high - low))
        for (_, value, colour, weight), y in zip(own, heights, strict=True):
            text = metric.text(value) if abs(value) < 10 else f"{value:.1f}"
            ax.annotate(text, (x + 0.1, y), (7, 0), textcoords="offset points", va="center", color=colour, fontsize=8,
                        weight=weight)  # fmt: skip


def shown_arms(table: Table) -> list[str]:
    """At most twelve arms, in the table's order: the main one, random weights and the best of the others."""
    if len(table.arms) <= MOST:
        return table.arms
    metric = table.metrics[0]
    means = {arm: Mean.of(row.values()).value for arm in table.arms if (row := table.means(arm, metric.key))}
    ranked = sorted(means, key=lambda arm: (arm not in (table.main, "random"), -metric.sign * means[arm]))
    return [arm for arm in table.arms if arm in ranked[:MOST]]


def by_size(table: Table, name: str) -> Iterable[Drawing]:
    """Every seed as a mark, the mean as a bar, side by side for the arms of each column."""
    arms, ax = shown_arms(table), axes()
    _draw_scores(ax, table, arms)
    left_out = len(table.arms) - len(arms)
    more = f" {left_out} of {len(table.arms)} arms are left out; the table has all of them." if left_out else ""
    yield drawing(ax, name, f"Every seed is a mark, the mean a bar.{more}", y=metric_label(table.metrics[0]))


def _draw_scores(ax: Axes, table: Table, arms: Sequence[str]) -> None:
    metric = table.metrics[0]
    step = 0.8 / len(arms)
    for i, arm in enumerate(arms):
        colour, marker = mark(arm)
        for j, column in enumerate(table.columns):
            values = list(table.values(arm, column, metric.key).values())
            if not values:
                continue
            x, mean = j - 0.4 + (i + 0.5) * step, Mean.of(values).value
            ax.plot([x] * len(values), values, marker, color=colour, markersize=4, alpha=0.75, markeredgewidth=0)
            ax.plot([x - 0.4 * step, x + 0.4 * step], [mean, mean], color=colour, linewidth=2)
        ax.plot([], [], marker, color=colour, label=arm)
    low, high = ax.get_ylim()
    if metric.key == "top1" and table.chance is not None and table.chance > low - (high - low) / 3:
        # further below it would squeeze the rest
        ax.axhline(table.chance, color=INK, linewidth=0.9, linestyle=":", label=f"chance, {table.chance:g} %")
    for j in range(1, len(table.columns)):
        ax.axvline(j - 0.5, color=INK, alpha=0.12, linewidth=0.6)
    ax.grid(visible=False, axis="x")
    ax.set_xticks(range(len(table.columns)), table.columns)


def by_cost(table: Table, name: str) -> Iterable[Drawing]:
    """The metric against parameters and against FLOPs of the target."""
    metric, known = table.metrics[0], targets(table)
    if len({*known.values()}) < 2:
        return
    words = {"params": "parameters", "flops": "forward FLOPs of one image, all matrix products"}
    for key, what in words.items():
        counts: dict[str, int] = {column: getattr(one, key) for column, one in known.items()}
        billions = max(counts.values()) > 1e9
        unit = 1e9 if billions else 1e6
        ax = axes()
        for arm in shown_arms(table):
            means = table.means(arm, metric.key)
            _line(ax, arm, sorted((counts[column] / unit, value) for column, value in means.items()))
        log_axis(ax, [count / unit for count in counts.values()])
        main = table.means(table.main or "", metric.key)
        name_points(ax, {column: (counts[column] / unit, value) for column, value in main.items()})
        x = f"{'parameters' if key == 'params' else 'FLOPs'} of the target, {'G' if billions else 'millions'}"
        text = f"Against exact {what}, without a head; means over seeds. Sizes are written at {table.spec.main}."
        yield drawing(ax, f"{name}{key}", text, x=x, y=metric_label(metric))


def name_points(ax: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Names of points above a plot with a logarithmic x axis, a thin line to each, none over another."""
    if not points:
        return
    low, high = (math.log10(edge) for edge in ax.get_xlim())
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.12 * (top - bottom))
    places = apart([math.log10(x) for x, _ in points.values()], 0.13 * (high - low))
    shift = min(0, high - max(places)) + max(0, low - min(places))
    for (name, (x, y)), place in zip(points.items(), places, strict=True):
        ax.plot([x, 10 ** (place + shift)], [y, top], color=INK, alpha=0.25, linewidth=0.6)
        ax.annotate(name, (10 ** (place + shift), top), (0, 2), textcoords="offset points", ha="center", fontsize=7)


def by_pretraining(table: Table, name: str) -> Iterable[Drawing]:
    """Mean over the columns that all shown arms have, against what was spent on their source."""
    metric = table.metrics[0]
    spent = {arm: value for arm in shown_arms(table) if (value := pretraining_of(table, arm)) is not None}
    means = {arm: table.means(arm, metric.key) for arm in spent}
    columns = [column for column in table.columns if all(column in row for row in means.values())]
    if not columns or not any(spent.values()):
        return
    ax = axes()
    for arm, value in spent.items():
        colour, marker = mark(arm)
        mean = sum(means[arm][column] for column in columns) / len(columns)
        ax.plot([value], [mean], marker, color=colour, label=arm, markersize=8)
    ax.set_xlim(left=-0.05 * ax.get_xlim()[1])
    each = ", ".join(arm for arm in spent if arm in table.of_each_size)
    text = f"Mean over {', '.join(columns)} against what was spent on the source, once for all sizes"
    text += f"; of {each} on that of one size, on average." if each else "."
    yield drawing(ax, name, text, x="pre-training of the source, PFLOPs", y=metric_label(metric))


def total_cost(table: Table, name: str) -> Iterable[Drawing]:
    """Total cost against the number of target sizes."""
    found, numbers = totals(table), range(1, 11)
    if len(found) < 2:
        return
    ax = axes()
    for one in found:
        colour, marker = mark(one.arm)
        ax.plot(numbers, [one.of(n) for n in numbers], color=colour, marker=marker, label=one.name)
    ax.set_xticks(numbers)
    ax.set_ylim(bottom=0)
    others = [one for one in found if one.role in ("baseline", "reference")] if found[0].role == "ours" else []
    crossings = [_crossing(crossing(found[0], one), one.name) for one in others]
    text = " ".join(["Training FLOPs, counted by formula for sizes as in this table, on average.", *crossings])
    yield drawing(ax, name, text, x="number of target sizes", y="PFLOPs in all", columns=1)


def from_template(table: Table, name: str) -> Iterable[Drawing]:
    """Ways to take a size from a template, beside random; columns by width and depth."""
    ours = [arm.name for arm in table.spec.arms if arm.role == "ours"]
    arms, metric = [arm for arm in shown_arms(table) if arm in ours or arm == "random"], table.metrics[0]
    sizes = {column: Size.parse(table.column(column).size) for column in table.columns}
    columns = sorted(table.columns, key=lambda column: (sizes[column].heads, sizes[column].depth))
    if table.spec.ablation or sum(arm in ours for arm in arms) < 2 or len(columns) < 2:
        return
    ax = axes()
    for arm in arms:
        colour, marker = mark(arm)
        found = {i: mean for i, column in enumerate(columns) if (mean := table.mean(arm, column, metric.key))}
        spreads = [0 if math.isnan(mean.spread) else mean.spread for mean in found.values()]
        values = [mean.value for mean in found.values()]
        ax.errorbar([*found], values, spreads, color=colour, marker=marker, label=arm, capsize=2)
    ax.set_xticks(range(len(columns)), columns)
    text = "Ways to take a size from a template, beside random. Bars are the standard deviation over seeds."
    yield drawing(ax, name, text, x="target, narrow to wide", y=metric_label(metric))


def before_tuning(table: Table, name: str) -> Iterable[Drawing]:
    """What initial weights are worth before any fine-tuning: reconstruction loss and k-NN in each column."""
    for key, label in BEFORE.items():
        ax = axes()
        for arm in shown_arms(table):
            means = table.means(arm, key)
            _line(ax, arm, [(i, means[column]) for i, column in enumerate(table.columns) if column in means])
        if not ax.lines:
            continue
        ax.set_xticks(range(len(table.columns)), table.columns)
        yield drawing(ax, f"{name}{key[5]}", f"Before any fine-tuning: {label}.", y=label)


def curves(table: Table, name: str) -> Iterable[Drawing]:
    """Training loss of fine-tuning, mean over seeds, one figure for each column; where runs kept a ``curve``."""
    for i, column in enumerate(table.columns):
        ax = axes()
        for arm in shown_arms(table):
            if (arm, column) in table.cells:
                _line(ax, arm, mean_curve(table.cells[arm, column].runs), marks=False)
        if ax.lines:
            text = f"Convergence at {column}, mean over seeds."
            yield drawing(ax, f"{name}c{i}", text, x="step of fine-tuning", y="training loss")


def mean_curve(runs: Sequence[Run]) -> list[tuple[int, float]]:
    """(step, mean loss) of the steps that every run with a ``curve`` has."""
    losses = [dict(run.curve) for run in runs if run.curve]
    steps = sorted(set.intersection(*map(set, losses))) if losses else []
    return [(step, sum(one[step] for one in losses) / len(losses)) for step in steps]


def _line(ax: Axes, arm: str, points: Sequence[tuple[float, float]], *, marks: bool = True) -> None:
    colour, marker = mark(arm)
    if points:
        ax.plot(*zip(*points, strict=True), color=colour, marker=marker if marks else None, label=arm)


def _crossing(sizes: int | None, name: str) -> str:
    if sizes is None:
        return f"One template never costs less than: {name}."
    return f"From {sizes} {'size' if sizes == 1 else 'sizes'} on, one template costs less than: {name}."
