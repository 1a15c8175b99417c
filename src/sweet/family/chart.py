"""A family as a table and as a chart: quality against parameters, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet.files import replacing, write_text
from sweet.results.family import Family, Member
from sweet.results.render.family_section import NOTE, family_grid
from sweet.results.render.markdown import markdown
from sweet.tasks.registry import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_table(family: Family, path: Path, *, about: str) -> None:
    """The members as markdown under a line ``about`` them."""
    runs = "" if family.baselines else f" {family.runs[:1].upper()}{family.runs[1:]}."  # else its sentences say so
    write_text(path, "\n".join([about, "", markdown(family_grid(family)), *family.sentences(), NOTE + runs, ""]))


def write_chart(family: Family, folder: Path, *, title: str) -> None:
    """``pareto.png`` and ``pareto.svg``: every member a point, those that no other beats joined by a line if several.

    The same sizes by another method are a dashed line. Bars are the standard deviation over seeds, where there are
    several.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from sweet.results.render.draw import log_axis
    from sweet.results.render.figures import name_points
    from sweet.tasks.fonts import visible
    from sweet.tasks.pictures import plain_text

    rows, metric = family.members, family.judge
    with mpl.rc_context({"svg.hashsalt": "sweet"}), plain_text():  # the same family gives the same file
        figure = Figure(figsize=(6.0, 3.8), layout="constrained")
        axes = figure.add_subplot()
        places = {row.size: (row.params / 1e6, row.quality(metric)) for row in rows}
        front = sorted(places[row.size] for row in rows if row.pareto)
        if len(front) > 1:
            axes.plot(*zip(*front, strict=True), "-", color="#1f5fa8", label="Pareto front")
        _points(axes, rows, metric, color="#1f5fa8", fmt="o", label=family.method)
        for method in family.compared_with:
            others = [one for one in family.baselines if one.method == method]
            _points(axes, others, metric, color="#8c8c8c", fmt="X--", label=method)
        log_axis(axes, [x for x, _ in places.values()])
        name_points(axes, places)
        axes.set_xlabel("parameters without a head, M")
        axes.set_ylabel(metric.label)
        axes.set_title(visible(title), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        for suffix in ("png", "svg"):
            with replacing(folder / f"pareto.{suffix}") as temporary:
                nothing = {"Date": None} if suffix == "svg" else None
                figure.savefig(temporary, format=suffix, dpi=150, metadata=nothing)


def _points(axes: Axes, members: Sequence[Member], metric: Metric, **how: Any) -> None:
    """Quality against parameters, with bars where there are several seeds."""
    x, y = ([one.params / 1e6 for one in members], [one.quality(metric) for one in members])
    spread = [one.mean.spread if one.seeds else 0.0 for one in members]
    axes.errorbar(x, y, spread if any(spread) else None, capsize=3, markersize=6, **how)
