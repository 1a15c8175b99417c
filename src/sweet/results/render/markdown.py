"""``docs/results.md`` and the ``table.md`` beside each table: what was measured, from the JSON files alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path

from sweet.results.compare import compare
from sweet.results.paper import paper
from sweet.results.records import RULES
from sweet.results.rows import Grid, blocks, description
from sweet.results.sentences import sentences
from sweet.results.table import Table, unique

from .strip import strip
from .words import caution, question

HEAD = """# Results

Ways to make the first weights of a Vision Transformer, compared: each is a row of a table, an *arm*; each column is a
size (`L6H6`: 6 layers, 6 heads). Every model gets the same fine-tuning and is tested on the same held-out images.
`{command}` writes this page from the JSON files of `sweet bench`; no number is typed by hand.
"""
READING = """
## How to read a table

- A cell is *mean ± standard deviation (replicates)* on held-out images. A replicate has its own seed: that of its
  sources, of its initial weights and of its fine-tuning.
- An average is over the sizes that every arm of the table has; of two arms, over those that both have.
- Differences are paired over replicates, with the sign chosen so that above zero the first arm is better. They use only
  the replicates that both arms have. ± is half of a 95 % interval, from a variance that is pooled over the table.
- *gain* and *worse*: a t test with that variance, all comparisons of the table considered (Holm, 5 %). *no gain*:
  neither. *one seed* shows nothing; a size of one replicate counts in averages only.
- Every setting was chosen on training images that were held out, in the tables `settings` and `learning_rates`.
- Rows of *{label}* are printed in the paper ({paper}), for other data at another scale. Compare the order of its rows
  with ours, not the numbers.
"""
NOTHING = """
No table has been measured by today's rules yet: replicates that have their own sources, settings chosen on held-out
training images, conditioned baselines, and each size pre-trained itself. What was measured before is history, below.
"""
HISTORY = """
## History

What was measured by earlier rules, which a reader should know: one source stands behind all seeds, so that the spread
is that of fine-tuning alone; settings were chosen on the test images; no baseline was conditioned. Rows have the names
of their time.
"""


def markdown(grid: Grid) -> str:
    """A grid as a table."""
    lines = [grid.heads, ("---",) * len(grid.heads), *grid.lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def results_page(tables: Sequence[Table], page: Path, command: str) -> str:
    """All of ``docs/results.md``: what each table says, by protocol, its numbers folded; then what older ones said.

    Links are relative to ``page``.
    """
    today = [table for table in tables if table.spec.version >= RULES]
    older = [table for table in tables if table.spec.version < RULES]
    text = HEAD.format(command=command) + in_short(today)
    text += "".join(f"\n{found}\n" for found in unique(caution(table) or None for table in today))
    text += READING.format(label=paper().label, paper=paper().paper)
    for protocol, group in groupby(today, lambda table: table.spec.protocol):
        text += f"\n## Protocol {protocol}\n" + "".join(f"\n{_folded(table, page)}" for table in group)
    return text + (HISTORY if older else "") + "".join(f"\n{_folded(table, page)}" for table in older)


def in_short(tables: Sequence[Table]) -> str:
    """What tables say: of one that has the paper's method or conditioned baselines all of it, of others a sentence."""
    lines = []
    for table in tables:
        words, whole = sentences(table), table.of_role("paper") or table.of_role("conditioned")
        if not table.spec.validation:
            lines.append(f"- **{table.title}**: {' '.join(words if whole else words[:1])}\n")
    return "\n## In short\n\n" + "".join(lines) if lines else NOTHING


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
