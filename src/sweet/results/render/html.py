"""The page: one HTML file that holds all it shows, no server, no network, no script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import unescape
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
from sweet.results.table import Table, unique
from sweet.version import VERSION

from .draw import style
from .family_section import family_section
from .figures import figures, headline
from .parts import HeatCell, HeatMap, Part, Section, as_yaml, text
from .run_figures import spectrum_figure
from .run_section import run_section
from .strip import STYLES, strength, strip
from .words import ABOUT, caution, glossary, question

MOST_OPEN = 3  # runs: of more the first line is shown, the rest is folded
MARKS: dict[Verdict, str] = {"gain": "▲", "worse": "▼", "no gain": "=", "one seed": "1"}


def page(
    tables: Sequence[Table],
    runs: Sequence[RunFolder],
    families: Mapping[Path, Family],
    *,
    data: str | None = None,
) -> str:
    """The report as HTML text. ``data`` are images for the reconstructions of sources among ``runs``."""
    environment = Environment(
        loader=PackageLoader("sweet.results.render", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    environment.filters["explained"] = explained
    with style():
        sections = [table_section(table, f"t{i}") for i, table in enumerate(tables)]
        sections += [family_section(*one, f"f{i}") for i, one in enumerate(families.items())]
        for i, run in enumerate(runs):
            found = run_section(run, f"r{i}", data)
            sections.append(replace(found, title=_place(run, families), folded=len(runs) > MOST_OPEN))
    names = [section.name or section.title for section in sections]
    return environment.get_template("page.html").render(
        title=", ".join(names) if len(names) < 4 else _number_of(tables, runs, families),
        sections=sections,
        about=[ABOUT, *unique(caution(table) or None for table in tables)] if tables else [],
        paper=paper(),
        version=VERSION,
    )


def _number_of(tables: Sequence[Table], runs: Sequence[RunFolder], families: Mapping[Path, Family]) -> str:
    counts = {"table of results": tables, "family": families, "run": runs}
    several = {"table of results": "tables of results", "family": "families", "run": "runs"}
    return ", ".join(f"{len(ones)} {several[one] if len(ones) > 1 else one}" for one, ones in counts.items() if ones)


def _place(run: RunFolder, families: Mapping[Path, Family]) -> str:
    """The name of a run, in a family that of its place: ``family/random/L6H6``."""
    around = next((folder for folder in families if folder in run.folder.parents), None)
    return run.title if around is None else str(run.folder.relative_to(around.parent))


def breakable(name: str) -> Markup:
    """A name that a narrow column may break after an underscore, a dot or an @."""
    return Markup("<wbr>").join(escape(piece) for piece in re.split(r"(?<=[_.@])", name))


def explained(svg: str, glossary: Mapping[str, str]) -> Markup:
    """A drawing whose words say what they mean when they are touched."""

    def with_title(found: re.Match[str]) -> str:
        about = glossary.get(unescape(found[2]))
        return f"{found[1]}<title>{escape(about)}</title>{found[2]}" if about else found[0]

    return Markup(re.sub(r"(<text[^>]*>)([^<]+)", with_title, svg))


def table_section(table: Table, name: str) -> Section:
    """Everything about a table; ids inside begin with ``name``."""
    found = compare(table)
    heat = [Part(f"Where {found.main} wins", heat=heat_map(found), folded=True)] if found else []
    words, sweep = sentences(table), table.spec.validation  # whose numbers are for a choice, not to be looked at
    drawn = [] if sweep else figures(table, name)
    for i, source in enumerate(one for one in table.sources.values() if one.order_spectrum and not sweep):
        one = spectrum_figure(source.order_spectrum, f"{name}s{i}")
        drawn.append(replace(one, caption=f"{source.source}: {one.caption}"))
    cell = table.cells_of(table.main or table.arms[0])[0]
    shown = {"kind", "constraint", "ranks", "vit", "mae", "training"}
    recipes = {name: source.model_dump(mode="json", include=shown) for name, source in table.sources.items()}
    files = Grid(("file", "sha256"), tuple((path.name, sha256(path)) for path in table.files))
    parts = [
        *heat,
        *(replace(Part.of(block), folded=True) for block in blocks(table)),
        *([Part("Figures", drawings=drawn, folded=True)] if drawn else []),
        Part(f"Recipe of fine-tuning: {cell.arm} at {cell.column}", text=as_yaml(cell.recipe)),
        Part("Recipes of the sources", text=as_yaml(recipes)),
        Part("Environment", environments(table), folded=True),
        Part("Checksums of the results", files, folded=True),
    ]
    return Section(
        name,
        question(table),
        words[0],
        description(table),
        parts,
        name=table.title,
        chart=headline(table, f"{name}h"),
        strip=strip(found) if found else None,
        notes=words[1:],
        glossary=glossary(table),
    )


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
            error="" if one.verdict == "one seed" else f"± {one.margin:.{digits}f}",
            mark=MARKS[one.verdict],
            style=f"{STYLES[one.verdict]} {'up' if one.value > 0 else 'down'}",
            alpha=strength(one, largest),
            title=f"{one.verdict}, {one.seeds} seeds",
        )

    groups = {
        f"{found.table.other}s": found.baselines,
        "conditioned baselines": found.of_role("conditioned"),
        "the paper's method": found.of_role("paper"),
        "lines to reach": found.of_role("reference"),
        "other arms of our method": found.variants,
    }
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
