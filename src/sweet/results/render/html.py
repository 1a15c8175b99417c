"""The page: one HTML file that holds all it shows, no server, no network, no script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from sweet.files import sha256
from sweet.results.compare import AVERAGE, Differences, compare
from sweet.results.family import Family
from sweet.results.paired import Difference, Verdict, signed
from sweet.results.paper import paper
from sweet.results.rows import Grid, blocks, description
from sweet.results.runs import RunFolder
from sweet.results.sentences import sentences
from sweet.results.table import Table
from sweet.version import VERSION

from .draw import style
from .family_section import family_section
from .figures import figures
from .parts import HeatCell, HeatMap, Part, Section, as_yaml, text
from .run_figures import spectrum_figure
from .run_section import run_section

MARKS: dict[Verdict, str] = {"gain": "▲", "worse": "▼", "no gain": "=", "one seed": "1"}
CLASSES: dict[Verdict, str] = {"gain": "win", "worse": "loss", "no gain": "tie", "one seed": "single"}


def page(
    tables: Sequence[Table],
    runs: Sequence[RunFolder],
    families: Mapping[Path, Family] | None = None,
    *,
    data: str | None = None,
) -> str:
    """The report as HTML text. ``data`` are images for the reconstructions of sources among ``runs``."""
    environment = Environment(
        loader=PackageLoader("sweet.results.render", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    with style():
        sections = [table_section(table, f"t{i}") for i, table in enumerate(tables)]
        sections += [family_section(*one, f"f{i}") for i, one in enumerate((families or {}).items())]
        sections += [run_section(run, f"r{i}", data) for i, run in enumerate(runs)]
    names = [section.title for section in sections]
    return environment.get_template("page.html").render(
        title=", ".join(names) if len(names) < 4 else f"{len(names)} tables and runs",
        sections=sections,
        paper=paper(),
        version=VERSION,
    )


def breakable(name: str) -> Markup:
    """A name that a narrow column may break after an underscore, a dot or an @."""
    return Markup("").join(escape(piece) + Markup("<wbr>") for piece in re.split(r"(?<=[_.@])", name))


def table_section(table: Table, name: str) -> Section:
    """Everything about a table; ids inside begin with ``name``."""
    found = compare(table)
    heat = [Part(f"Where {found.main} wins", heat=heat_map(found))] if found else []
    drawn = figures(table, name)
    for i, source in enumerate(one for one in table.sources.values() if one.order_spectrum):
        one = spectrum_figure(source.order_spectrum, f"{name}s{i}")
        drawn.append(type(one)(one.svg, f"{source.source}: {one.caption}"))
    shown = {"kind", "constraint", "ranks", "vit", "mae", "training"}
    recipes = {name: source.model_dump(mode="json", include=shown) for name, source in table.sources.items()}
    files = Grid(("file", "sha256"), tuple((path.name, sha256(path)) for path in table.files))
    parts = [
        *heat,
        *map(Part.of, blocks(table)),
        Part("Figures", drawings=drawn),
        Part("Recipe of fine-tuning", text=as_yaml(next(iter(table.cells.values())).recipe)),
        Part("Recipes of the sources", text=as_yaml(recipes)),
        Part("Environment", environments(table), folded=True),
        Part("Checksums of the results", files, folded=True),
    ]
    return Section(name, table.title, sentences(table), description(table), parts)


def heat_map(found: Differences) -> HeatMap:
    """The differences of the main arm, as colours; baselines first."""
    rows, digits = found.against.values(), found.metric.digits
    columns = [name for name in (*found.table.columns, AVERAGE) if any(name in row for row in rows)]
    largest = max((abs(one.value) for row in rows for one in row.values()), default=0) or 1

    def cell(one: Difference | None) -> HeatCell | None:
        if one is None:
            return None
        return HeatCell(
            text=signed(one.value, digits),
            error="" if one.seeds < 2 else f"± {one.error:.{digits}f}",
            mark=MARKS[one.verdict] + ("*" if one.sure and one.verdict != "no gain" else ""),
            style=f"{CLASSES[one.verdict]} {'up' if one.value > 0 else 'down'}",
            alpha=round(0.08 + 0.72 * (abs(one.value) / largest) ** 0.7, 2),
            title=f"{one.verdict}, {one.seeds} seeds",
        )

    groups = {f"{found.table.other}s": found.baselines, "other arms of our method": found.variants}
    cells = {
        word: {arm: [cell(found.against[arm].get(column)) for column in columns] for arm in arms}
        for word, arms in groups.items()
        if arms
    }
    return HeatMap(found.main, found.metric.label, columns, cells)


def environments(table: Table) -> Grid:
    """Machines, versions and commits that the runs were measured with, and how many each."""
    found = [{"commit": run.commit, **run.environment} for run in table.runs]
    heads = dict.fromkeys(key for one in found for key in one)  # older runs record less
    counted = Counter(tuple(text(one.get(key)) for key in heads) for one in found)
    return Grid(("runs", *heads), tuple((str(number), *values) for values, number in counted.items()))
