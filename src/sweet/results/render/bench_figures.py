"""The pictures of a table, one function each: SVG text, or None where its numbers are not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sweet.results.compare import cell_means
from sweet.results.costs import crossing, pretraining_of, targets, totals
from sweet.results.paired import mean_and_spread
from sweet.results.read import BenchTable
from sweet.tasks.registry import METRICS
from sweet.template.sizes import Size

from .colours import mark
from .draw import INK, axes, legend, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 12  # arms in one picture
STARTS = ("random", "sweet_prefix", "sweet_learned", "sweet", "sweet_tiles", "sweet_fitted")
STARTS_SAID = (
    "Ways to take a size from a template, beside random: sweet_prefix is the paper's slice of the paper's template, "
    "sweet_learned the same template in principal order, sweet and sweet_fitted are of one that was learned whole, "
    "sweet_tiles of one that was learned as sums of Kronecker products. "
    "Bars are the standard deviation over seeds."
)
Picture = tuple[str, str]  # SVG, caption


def pictures(table: BenchTable, name: str) -> list[Picture]:
    """All pictures that the numbers of a table allow; ids inside begin with ``name``."""
    makers: list[Callable[[BenchTable, str], list[Picture]]] = [
        by_size, by_cost, by_pretraining, total_cost, starts, before_tuning, curves
    ]  # fmt: skip
    return [picture for i, make in enumerate(makers) for picture in make(table, f"{name}{i}")]


def shown_arms(table: BenchTable, metric: str) -> list[str]:
    """At most twelve arms, in the table's order: ours and the best of the others."""
    if len(table.arms) <= MOST:
        return table.arms
    sign = 1 if METRICS[metric].higher_is_better else -1
    means = {arm: mean_and_spread([*row.values()])[0] for arm, row in cell_means(table, metric).items() if row}
    ranked = sorted(means, key=lambda arm: (arm != table.ours, -sign * means[arm]))
    return [arm for arm in table.arms if arm in ranked[:MOST]]


def by_size(table: BenchTable, name: str) -> list[Picture]:
    """Every seed as a dot, the mean as a line, a column of dots for each arm at each size."""
    metric = table.metrics[0]
    arms = shown_arms(table, metric)
    ax = axes()
    step = 0.8 / len(arms)
    for i, arm in enumerate(arms):
        colour, marker = mark(arm)
        for j, size in enumerate(table.sizes):
            values = list(table.values(arm, size, metric).values())
            if not values:
                continue
            x = j - 0.4 + (i + 0.5) * step
            mean = mean_and_spread(values)[0]
            ax.plot([x] * len(values), values, marker, color=colour, markersize=4, alpha=0.75, markeredgewidth=0)
            ax.plot([x - 0.4 * step, x + 0.4 * step], [mean, mean], color=colour, linewidth=2)
        ax.plot([], [], marker, color=colour, label=arm)
    _chance(ax, table, metric)
    for j in range(1, len(table.sizes)):
        ax.axvline(j - 0.5, color=INK, alpha=0.12, linewidth=0.6)
    ax.grid(visible=False, axis="x")
    ax.set_xticks(range(len(table.sizes)), table.sizes)
    ax.set_ylabel(_label(metric))
    legend(ax)
    left_out = len(table.arms) - len(arms)
    more = f" {left_out} of {len(table.arms)} rows are left out; all stand in the table." if left_out else ""
    return [(svg(ax, name), f"Every seed is a mark, the mean a bar.{more}")]


def by_cost(table: BenchTable, name: str) -> list[Picture]:
    """The metric against parameters and against FLOPs of the target."""
    metric, known = table.metrics[0], targets(table)
    if not known or len(table.sizes) < 2:
        return []
    means, result = cell_means(table, metric), []
    words = {"params": ("parameters of the target, millions", 1e6), "flops": ("FLOPs of the target, millions", 1e6)}
    for key, (label, unit) in words.items():
        unit, label = (
            (1e9, label.replace("millions", "G")) if max(v[key] for v in known.values()) > 1e9 else (unit, label)
        )
        ax = axes()
        for arm in shown_arms(table, metric):
            points = sorted((known[size][key] / unit, value) for size, value in means[arm].items())
            _line(ax, arm, points)
        for size, value in means.get(table.ours or "", {}).items():
            ax.annotate(
                size, (known[size][key] / unit, value), (0, 6), textcoords="offset points", ha="center", fontsize=7
            )
        ax.set_xlabel(label)
        ax.set_ylabel(_label(metric))
        legend(ax)
        what = "parameters" if key == "params" else "forward FLOPs of one image, all matrix products"
        result.append(
            (
                svg(ax, f"{name}{key}"),
                f"Against exact {what}, without a head; means over seeds. Sizes are written at ours.",
            )
        )
    return result


def by_pretraining(table: BenchTable, name: str) -> list[Picture]:
    """Mean over the sizes that all shown arms have, against what was spent on their source."""
    metric = table.metrics[0]
    arms = [arm for arm in shown_arms(table, metric) if pretraining_of(table, arm) is not None]
    sizes = [size for size in table.sizes if all(table.values(arm, size, metric) for arm in arms)]
    if not sizes or not any(pretraining_of(table, arm) for arm in arms):
        return []
    ax = axes()
    for arm in arms:
        colour, marker = mark(arm)
        means = cell_means(table, metric)[arm]
        spent = pretraining_of(table, arm) or 0.0
        value = sum(means[size] for size in sizes) / len(sizes)
        ax.plot([spent], [value], marker, color=colour, label=arm, markersize=8)
    ax.set_xlim(left=-0.05 * ax.get_xlim()[1])
    ax.set_xlabel("pre-training of the source, PFLOPs")
    ax.set_ylabel(_label(metric))
    legend(ax)
    return [(svg(ax, name), f"Mean over {', '.join(sizes)} against what was spent on the source, once for all sizes.")]


def total_cost(table: BenchTable, name: str) -> list[Picture]:
    """Total cost against the number of target sizes."""
    found = totals(table)
    if len(found) < 2:
        return []
    ax, most = axes(), 10
    for one in found:
        colour, marker = mark(one.arm)
        ax.plot(
            range(1, most + 1), [one.of(n) for n in range(1, most + 1)], color=colour, marker=marker, label=one.name
        )
    ax.set_xticks(range(1, most + 1))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("number of target sizes")
    ax.set_ylabel("PFLOPs in all")
    legend(ax, columns=1)
    first = found[0]
    others = [one for one in found[1:] if not one.arm.startswith("sweet")]
    said = [_crossing(crossing(first, one), one.name) for one in others if first.arm == "sweet"]
    text = "Training FLOPs, counted by formula for sizes as in this table, on average. " + " ".join(said)
    return [(svg(ax, name), text.strip())]


def starts(table: BenchTable, name: str) -> list[Picture]:
    """Ways to take a size from a template, beside random, sizes by width and depth."""
    arms = [arm for arm in STARTS if arm in table.arms]
    metric = table.metrics[0]
    sizes = sorted(table.sizes, key=lambda text: (Size.parse(text).heads, Size.parse(text).depth))
    if sum(arm.startswith("sweet") for arm in arms) < 2 or len(sizes) < 2:
        return []
    ax = axes()
    for arm in arms:
        colour, marker = mark(arm)
        means = {size: table.values(arm, size, metric) for size in sizes}
        points = [(i, *mean_and_spread([*means[size].values()])) for i, size in enumerate(sizes) if means[size]]
        xs, ys, spread = zip(*points, strict=True)
        ax.errorbar(xs, ys, [0 if s != s else s for s in spread], color=colour, marker=marker, label=arm, capsize=2)
    ax.set_xticks(range(len(sizes)), sizes)
    ax.set_xlabel("target, narrow to wide")
    ax.set_ylabel(_label(metric))
    legend(ax)
    return [(svg(ax, name), STARTS_SAID)]


def before_tuning(table: BenchTable, name: str) -> list[Picture]:
    """What a start is worth before any fine-tuning: reconstruction loss and k-NN at each size."""
    result = []
    words = {"init_mae_loss": "MAE loss, held-out images", "init_knn": "k-NN top-1, %"}
    for key, label in words.items():
        arms = [
            arm for arm in shown_arms(table, table.metrics[0]) if any(table.values(arm, s, key) for s in table.sizes)
        ]
        if not arms:
            continue
        ax = axes()
        for arm in arms:
            found = {size: table.values(arm, size, key) for size in table.sizes}
            points = [(i, mean_and_spread([*found[s].values()])[0]) for i, s in enumerate(table.sizes) if found[s]]
            _line(ax, arm, points)
        ax.set_xticks(range(len(table.sizes)), table.sizes)
        ax.set_ylabel(label)
        legend(ax)
        result.append((svg(ax, f"{name}{key[5]}"), f"Before any fine-tuning: {label}."))
    return result


def curves(table: BenchTable, name: str) -> list[Picture]:
    """Training loss of fine-tuning, mean over seeds, a picture for each size; where runs kept a ``curve``."""
    result = []
    for i, size in enumerate(table.sizes):
        ax = axes()
        for arm in shown_arms(table, table.metrics[0]):
            points = mean_curve(table.cells.get((arm, size), {}).get("runs", ()))
            if points:
                _line(ax, arm, points, marks=False)
        if ax.lines:
            ax.set_xlabel("step of fine-tuning")
            ax.set_ylabel("training loss")
            legend(ax)
            result.append((svg(ax, f"{name}c{i}"), f"Convergence at {size}, mean over seeds."))
    return result


def mean_curve(runs: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """(step, mean loss) of the steps that every run with a ``curve`` has."""
    told = [dict(map(tuple, run["curve"])) for run in runs if run.get("curve")]
    steps = sorted(set.intersection(*map(set, told))) if told else []
    return [(step, sum(one[step] for one in told) / len(told)) for step in steps]


def _line(ax: Axes, arm: str, points: Sequence[tuple[float, float]], *, marks: bool = True) -> None:
    colour, marker = mark(arm)
    if points:
        ax.plot(*zip(*points, strict=True), color=colour, marker=marker if marks else None, label=arm)


def _chance(ax: Axes, table: BenchTable, metric: str) -> None:
    chance = table.first.get("chance_top1")
    low, high = ax.get_ylim()
    if metric == "top1" and chance is not None and chance > low - (high - low) / 3:  # else it would squeeze the rest
        ax.axhline(chance, color=INK, linewidth=0.9, linestyle=":", label=f"chance, {chance:g} %")


def _label(metric: str) -> str:
    return METRICS[metric].label + ("" if METRICS[metric].higher_is_better else " (lower is better)")


def _crossing(sizes: int | None, name: str) -> str:
    if sizes is None:
        return f"One template never costs less than: {name}."
    return f"From {sizes} {'size' if sizes == 1 else 'sizes'} on, one template costs less than: {name}."
