"""``table.png``: a panel for each column of a table, in rows, and a line of each panel for each arm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from sweet.results.costs import targets
from sweet.results.paired import Mean
from sweet.results.table import Table

from .colours import mark
from .draw import INK, style, write_png
from .words import metric_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 3  # panels in a row


def write_picture(table: Table, path: Path) -> None:
    """Every seed and mean of all arms as a PNG."""
    columns, metric = table.columns, table.metrics[0]
    across = min(ACROSS, len(columns))
    rows = -(-len(columns) // across)
    with style():
        names = 0.075 * max(map(len, table.arms))
        title = f"{table.title}: {metric_label(metric)}. Marks are seeds, bars are means."
        width = max(names + 0.4 + 3.1 * across, 0.08 * len(title))  # a table of one column is narrower than its title
        figure = Figure(figsize=(width, rows * (0.85 + 0.2 * len(table.arms)) + 0.55), layout="constrained")
        figure.suptitle(title, fontsize=11)
        panels = figure.subplots(rows, across, squeeze=False, sharey=True)
        for place, ax in enumerate(panels.flat):
            if place < len(columns):
                _panel(ax, table, columns[place])
            else:
                ax.remove()
        # what is read from top to bottom in the table is so here
        panels[0][0].set_yticks(range(len(table.arms)), table.arms)
        panels[0][0].invert_yaxis()
        write_png(figure, path)


def _panel(ax: Axes, table: Table, column: str) -> None:
    """Seeds as marks, the mean as a bar with its value."""
    metric, known = table.metrics[0], targets(table).get(column)
    ax.set_title(f"{column}, {known.params / 1e6:.2g} M parameters" if known else column, fontsize=10)
    for y, arm in enumerate(table.arms):
        values = [*table.values(arm, column, metric.key).values()]
        if not values:
            continue
        colour, marker = mark(arm)
        mean, bold = Mean.of(values).value, "bold" if arm == table.main else "normal"
        ax.plot(values, [y] * len(values), marker, color=colour, alpha=0.75, markeredgewidth=0)
        ax.plot([mean, mean], [y - 0.35, y + 0.35], color=colour, linewidth=2)
        ax.annotate(metric.text(mean), (max(values), y), (6, 0), textcoords="offset points", va="center", fontsize=8,
                    weight=bold)  # fmt: skip
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.14 * (high - low))  # room for the values
    if metric.key == "top1" and table.chance is not None and table.chance > low:
        ax.axvline(table.chance, color=INK, linewidth=0.9, linestyle=":")
    ax.grid(visible=False, axis="y")
