"""``docs/results.md`` and the ``table.md`` beside each table: what was measured, from the JSON files alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from sweet.results.paper import paper
from sweet.results.rows import Grid, blocks, description
from sweet.results.sentences import sentences
from sweet.results.table import Table

HEAD = """# Results

`{command}` writes this page from the JSON files of `sweet bench`. No number is typed by hand.

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
    """All of ``docs/results.md``; links are relative to where ``page`` lies."""
    text = HEAD.format(command=command, label=paper().label, paper=paper().paper)
    text += "\n## In short\n\n" + "".join(f"- **{table.title}**: {sentences(table)[0]}\n" for table in tables)
    return text + "".join(f"\n{section(table, links=_links(table, page))}" for table in tables)


def section(table: Table, *, links: str = "", failed: Collection[tuple[str, str]] = ()) -> str:
    """What was measured of a table for one task; ``failed`` as of :func:`sweet.results.rows.blocks`."""
    described = ", ".join(f"{key} {value}" for key, value in description(table).items())
    parts = [f"## {table.title}", " ".join(sentences(table)), f"{described}.", links]
    for block in blocks(table, failed):
        parts += [f"### {block.title}", markdown(block.grid), block.note]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _links(table: Table, page: Path) -> str:
    here = page.absolute().parent
    files = {"table": "table.md", "picture": table.picture}
    found = {word: table.folder / name for word, name in files.items() if (table.folder / name).is_file()}
    return "Files: " + ", ".join(
        f"[{word}]({Path(os.path.relpath(path.absolute(), here)).as_posix()})"
        for word, path in (found | {"JSON": table.folder}).items()
    ) + "."  # fmt: skip
