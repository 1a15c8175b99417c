"""A family as a table and as a chart: quality against parameters, with the Pareto front."""

from __future__ import annotations

from pathlib import Path

from sweet.files import replacing, write_text
from sweet.results.family import Family, on_front
from sweet.results.render.markdown import markdown
from sweet.results.rows import Grid
from sweet.tasks.registry import Metric


def write_table(family: Family, path: Path, *, about: str) -> None:
    """The members as markdown under a line ``about`` them."""
    rows, metric = family.members, family.judge
    timed = any(row.latency for row in rows)
    grid = Grid.of(
        {
            "size": row.size,
            "requested": row.requested,
            "parameters, M": f"{row.params / 1e6:.3f}",
            "GFLOPs": f"{row.flops / 1e9:.3f}",
            **({"ms": f"{row.latency.ms:.3g}" if row.latency else None} if timed else {}),
            metric.label: metric.text(row.quality(metric)),
            "Pareto": "yes" if front else "no",
            **{
                f"gain over {method}": _signed(family.gains(row).get(method), metric) for method in family.compared_with
            },
        }
        for row, front in zip(rows, on_front(rows, metric), strict=True)
    )
    note = "Parameters and FLOPs (all matrix products, one image) are the encoder's, without a head. One run each."
    write_text(path, "\n".join([about, "", markdown(grid), *family.sentences(), note, ""]))


def _signed(gain: float | None, metric: Metric) -> str | None:
    return None if gain is None else f"{gain:+.{metric.digits}f}"


def write_chart(family: Family, folder: Path, *, title: str) -> None:
    """``pareto.png`` and ``pareto.svg``: every member a point, those that no other beats joined by a line.

    The same sizes by another method are a dashed line.
    """
    rows, metric = family.members, family.judge
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "sweet"}):  # the same family gives the same file
        figure = Figure(figsize=(6.0, 3.8), layout="constrained")
        axes = figure.add_subplot()
        quality = [row.quality(metric) for row in rows]
        size = [row.params / 1e6 for row in rows]
        front = sorted((x, y) for x, y, best in zip(size, quality, on_front(rows, metric), strict=True) if best)
        axes.plot(size, quality, "o", color="#8fb2dd")
        axes.plot(*zip(*front, strict=True), "o-", color="#1f5fa8", label="Pareto front")
        for method in family.compared_with:
            points = [(one.params / 1e6, one.quality(metric)) for one in family.baselines if one.method == method]
            axes.plot(*zip(*points, strict=True), "o--", color="#8c8c8c", label=method)
        for row, x, y in zip(rows, size, quality, strict=True):
            axes.annotate(row.size, (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xscale("log")
        axes.set_xticks(size, [f"{x:.3g}" for x in size])
        axes.minorticks_off()
        axes.margins(0.12)
        axes.set_xlabel("parameters without a head, M")
        axes.set_ylabel(metric.label)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        for suffix in ("png", "svg"):
            with replacing(folder / f"pareto.{suffix}") as temporary:
                nothing = {"Date": None} if suffix == "svg" else None
                figure.savefig(temporary, format=suffix, dpi=150, metadata=nothing)
                temporary.chmod(0o644)
