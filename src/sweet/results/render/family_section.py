"""The part of the page about a family: what it concludes, its table and its chart."""

from __future__ import annotations

from pathlib import Path

import yaml

from sweet.results.family import Family, Member
from sweet.results.paired import signed
from sweet.results.rows import Grid
from sweet.results.runs import read_run

from .draw import Drawing
from .parts import Part, Section, text

NOTE = (
    "Parameters and FLOPs (all matrix products, one image) are the encoder's, without a head. Pareto: no other size is "
    "as good with fewer parameters."
)


def family_grid(family: Family) -> Grid:
    """A row for each member, smallest first: its quality, its cost, and what it gains over baselines."""
    rows, metric = family.members, family.judge
    timed = any(row.latency for row in rows)
    return Grid.of(
        {
            "size": row.size,
            metric.label: row.text(metric),
            "Pareto": "yes" if row.pareto else "no",
            **{key: cell for method in family.compared_with for key, cell in _against(family, row, method).items()},
            "requested": row.requested,
            "parameters, M": f"{row.params / 1e6:.3f}",
            "GFLOPs": f"{row.flops / 1e9:.3f}",
            **({"ms": f"{row.latency.ms:.3g}" if row.latency else None} if timed else {}),
        }
        for row in rows
    )


def _against(family: Family, member: Member, method: str) -> dict[str, str | None]:
    """What the same size reaches by a baseline, and what the member gains over it; None where it is not measured."""
    metric, other, gain = family.judge, family.member(member.size, method), family.gains(member).get(method)
    return {
        method: None if other is None else other.text(metric),
        f"gain over {method}": None if gain is None else signed(gain, metric.digits),
    }


def family_section(folder: Path, family: Family, name: str) -> Section:
    """Everything about a family but its models, which are runs."""
    chart = folder / "pareto.svg"
    drawn = chart.read_text(encoding="utf-8") if chart.is_file() else ""
    drawn = drawn[drawn.index("<svg") :].replace("<svg", '<svg class="on-white"', 1) if drawn else ""
    sizes = ", ".join(member.size for member in family.members) or "no size yet"
    first = f"A family of {len(family.members)} models from {family.source}, fine-tuned to {family.task}: {sizes}."
    about = family.model_dump(include={"source", "task", "data", "method", "img_size", "metric"}) | _recipe(
        folder, family
    )
    parts = [
        Part("Sizes", family_grid(family), NOTE),
        Part("Quality against size", drawings=[Drawing(drawn, "")] if drawn else []),
    ]
    shown = {key: text(value) for key, value in about.items()}
    return Section(name, folder.name, " ".join([first, *family.sentences()]), shown, parts)


def _recipe(folder: Path, family: Family) -> dict[str, object]:
    """How long and at which rate its members were fine-tuned, which is the same for all."""
    found = next((read_run(folder / one.folder).recipe for one in family.members), "")
    recipe = yaml.safe_load(found) or {}
    return {key: recipe[key] for key in ("epochs", "max_steps", "lr") if recipe.get(key) is not None}
