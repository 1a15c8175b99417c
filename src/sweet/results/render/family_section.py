"""The part of the page about a family: what it concludes, its table and its chart."""

from __future__ import annotations

from pathlib import Path

from sweet.results.family import Family
from sweet.results.rows import Grid

from .draw import Drawing
from .parts import Part, Section, text


def family_section(folder: Path, family: Family, name: str) -> Section:
    """Everything about a family but its models, which are runs."""
    chart = folder / "pareto.svg"
    drawn = chart.read_text(encoding="utf-8") if chart.is_file() else ""
    sizes = ", ".join(member.size for member in family.members) or "no size yet"
    first = f"A family of {len(family.members)} models from {family.source}, fine-tuned to {family.task}: {sizes}."
    rows = [{key: text(value) for key, value in row.items()} for row in family.rows()]
    about = family.model_dump(include={"source", "task", "data", "method", "img_size", "metric"})
    parts = [
        Part("Sizes", Grid.of(rows)),
        Part("Quality against size", drawings=[Drawing(drawn[drawn.index("<svg") :], "")] if drawn else []),
    ]
    shown = {key: text(value) for key, value in about.items()}
    return Section(name, folder.name, " ".join([first, *family.sentences()]), shown, parts)
