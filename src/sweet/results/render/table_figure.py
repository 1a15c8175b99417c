"""Pictures of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sweet.files import replacing
from sweet.results.cells import Table, chance_of, seeds_of
from sweet.results.paired import mean_and_spread
from sweet.tasks.registry import TASKS

from .colours import colour


def picture(
    cells: Table,
    arms: Sequence[str],
    sizes: Sequence[str],
    path: Path,
    *,
    title: str,
    task: str = "classify",
) -> None:
    """Mean of each cell as a bar, every seed as a dot, chance as a line; written as PNG."""
    shown = [size for size in sizes if any((arm, size) in cells for arm in arms)]
    metric = TASKS[task]
    figure = Figure(figsize=(max(5.0, 1.1 + 0.32 * len(arms) * len(shown)), 3.8), layout="constrained")
    axes = figure.add_subplot()
    step = 0.8 / max(1, len(arms))
    told: set[str] = set()
    for j, size in enumerate(shown):
        there = [arm for arm in arms if (arm, size) in cells]
        for i, arm in enumerate(there):
            values = list(seeds_of(cells[arm, size], metric.key).values())
            x = j + (i - (len(there) - 1) / 2) * step
            label = None if arm in told else arm
            axes.bar(x, mean_and_spread(values)[0], 0.9 * step, color=colour(arm), label=label)
            axes.plot([x] * len(values), values, ".", color="black", markersize=4)
        told |= set(there)
    chance = chance_of(cells)
    if chance is not None:
        axes.axhline(chance, color="#b03030", linewidth=1, linestyle="--", label=f"chance {chance:g} %")
    axes.set_xticks(range(len(shown)), shown)
    axes.set_ylabel(f"{metric.label} on held-out images")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(6, len(arms) + 1), fontsize=8, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
        temporary.chmod(0o644)
