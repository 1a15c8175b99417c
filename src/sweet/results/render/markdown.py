"""``docs/results.md`` and the ``table.md`` beside each table: what was measured, from the JSON files alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path

from sweet.results.compare import compare
from sweet.results.paper import paper
from sweet.results.rows import Grid, blocks, description
from sweet.results.sentences import sentences
from sweet.results.table import Table, unique

from .strip import strip
from .words import caution, question

HEAD = """# Results

Ways to make the first weights of a Vision Transformer, compared: each is a row of a table, an *arm*; each column is a
size (`L6H6`: 6 layers, 6 heads). Every model gets the same fine-tuning and is tested on the same held-out images.
`{command}` writes this page from the JSON files of `sweet bench`; no number is typed by hand.

- A cell is *mean ± standard deviation (seeds)* on held-out images.
- An average is over the sizes that every arm of the table can make.
- Differences are paired over seeds, with the sign chosen so that above zero the first arm is better. They use only
  the seeds that both arms have, so they may differ from the difference of the means.
- *gain* and *worse* mean two standard errors or more, *no gain* means less. *one seed* shows nothing.
- With few seeds the standard error itself is uncertain. A star marks what a paired t test at 95 % sees too.
- Each arm starts from one pre-trained source. The spread is that of fine-tuning, not of pre-training.
- Rows of *{label}* are printed in the paper ({paper}), for other data at another scale. Compare the order of its rows
  with ours, not the numbers.
"""


def markdown(grid: Grid) -> str:
    """A grid as a table."""
    lines = [grid.heads, ("---",) * len(grid.heads), *grid.lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def results_page(tables: Sequence[Table], page: Path, command: str) -> str:
    """All of ``docs/results.md``: by protocol, what each table says, its numbers folded. Links are relative to
    ``page``."""
    text = HEAD.format(command=command, label=paper().label, paper=paper().paper)
    text += "".join(f"\n{found}\n" for found in unique(caution(table) or None for table in tables))
    for protocol, group in groupby(tables, lambda table: table.spec.protocol):
        text += f"\n## Protocol {protocol}\n" + "".join(f"\n{_folded(table, page)}" for table in group)
    return text


def _folded(table: Table, page: Path) -> str:
    """A question, its answer, its picture, wins and losses; everything else behind a word."""
    found = compare(table)
    made = strip(found) if found else None
    picture = table.folder / table.picture
    parts = [f"### {question(table)}", f"**{table.title}.** {sentences(table)[0]}"]
    if picture.is_file():
        parts.append(f"![{table.title}, every seed and mean of all arms]({_relative(picture, page)})")
    if made:
        parts.append(f"**{made.counted}.** {made.losses}")
    inner = section(table, links=_links(table, page), title="").replace("\n### ", "\n#### ")
    return "\n\n".join([*parts, f'<details markdown="1"><summary>All numbers of {table.title}</summary>', inner]) + (
        "\n</details>\n"
    )


def section(
    table: Table, *, links: str = "", failed: Collection[tuple[str, str]] = (), title: str | None = None
) -> str:
    """What was measured of a table for one task; ``failed`` as of :func:`sweet.results.rows.blocks`."""
    described = ", ".join(f"{key} {value}" for key, value in description(table).items())
    parts = [f"## {table.title}" if title is None else title, " ".join(sentences(table)), f"{described}.", links]
    for block in blocks(table, failed):
        parts += [f"### {block.title}", markdown(block.grid), block.note]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _links(table: Table, page: Path) -> str:
    files = {"table": table.folder / "table.md", "JSON": table.folder}
    links = [f"[{word}]({_relative(path, page)})" for word, path in files.items() if path.exists()]
    return f"Files: {', '.join(links)}."


def _relative(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path.absolute(), page.absolute().parent)).as_posix()
