"""``docs/results.md`` and the ``table.md`` beside each table: what was measured, from the JSON files alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path

from sweet.results.compare import AVERAGE, Differences, compare, gains_over_best
from sweet.results.paired import signed
from sweet.results.paper import paper
from sweet.results.records import RULES
from sweet.results.rows import Grid, blocks, capital, description, ranking
from sweet.results.sentences import choices, listed, sentences
from sweet.results.table import Table, unique

from .strip import strip
from .words import caution, question

HEAD = """# Results

Ways to make the first weights of a Vision Transformer, compared: each is a row of a table, an *arm*; each column is a
size (`L6H6`: 6 layers, 6 heads). Every model gets the same fine-tuning and is tested on the same held-out images.
"""
READING = """
## How to read a table

- A cell is *mean ± standard deviation (replicates)* on held-out images. A replicate has its own seed: that of its
  sources, of its initial weights and of its fine-tuning; where a table has one source, not of that.
- An average is over the sizes that every arm of the table has; of two arms, over those that both have; in a sweep,
  over all that an arm has.
- Differences are paired over replicates, with the sign chosen so that above zero the first arm is better. They use only
  the replicates that both arms have. ± is half of a 95 % interval, from a variance that is pooled over the table, with
  no more degrees of freedom than its sources and replicates give.
- *gain* and *worse*: a t test with that variance, all comparisons of the table considered (Holm, 5 %), those of single
  sizes and averages apart. *no gain*: neither. *one seed* shows nothing; a size of one replicate counts in averages
  only.
- Settings are chosen on training images that were held out, in the tables `settings` and `learning_rates`; those of
  `quickstart`, `table4`, `table5` and `tasks` are fixed. The tables of History do not keep to this.
- Rows of *{label}* are printed in the paper ({paper}), for other data at another scale. Compare the order of its rows
  with ours, not the numbers.
- `{command}` writes this page from the JSON files of `sweet bench`; no number is typed by hand.
"""
EARLIER = "one source stands behind all seeds, settings were chosen on the test images, no baseline was conditioned"
HISTORY = f"""
## History

What was measured by earlier rules: {EARLIER}. So the spread is that of fine-tuning alone. Rows have the names of their
time. `@2` and `@4` are learning rates of fine-tuning, in thousandths; `flat` is without a decay by layer, `decay0.75`
with one. `sweet_rms` is principal order as it was first tried. In trials (`nano`) the first word is the source
(`turned1` is `dense1`, converted), the others are switches: [the log](log.md) says why each was tried.
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
    text = HEAD + in_short(today, older)
    text += READING.format(label=paper().label, paper=paper().paper, command=command)
    for protocol, group in groupby(today, lambda table: table.spec.protocol):
        text += f"\n## Protocol {protocol}\n" + "".join(f"\n{_folded(table, page)}" for table in group)
    return text + (HISTORY if older else "") + "".join(f"\n{_folded(table, page)}" for table in older)


def in_short(today: Sequence[Table], older: Sequence[Table]) -> str:
    """What tables say: of one that has the paper's method or conditioned baselines all of it, with the order of its
    arms; of others a sentence.

    Before there is such a one, what was found by earlier rules comes first, and sweeps that go on from others say what
    they know of each method at its best.
    """
    compared = [table for table in today if not table.spec.validation]
    whole = [table for table in compared if table.of_role("paper") or table.of_role("conditioned")]
    lines = [f"**{table.title}**: {' '.join(_said(table))}" for table in compared if table not in whole]
    if not whole:
        sweeps = [table for table in today if table.spec.validation and table.spec.chosen_by]
        best = [f"**{table.title}**, one seed, no comparison yet: {' '.join(sentences(table))}" for table in sweeps]
        lines = [*_so_far(older), *best, *lines]
        lines += unique(caution(table) or None for table in compared)
    text = "".join(map(_whole, whole)) + ("\nOther tables:\n" if whole and lines else "")
    text += "".join(["\n", *(f"- {line}\n" for line in lines)] if lines else [])
    return f"\n## In short\n{text}" if text else ""


def _said(table: Table) -> list[str]:
    """The first sentence, and what each choice of an ablation is worth."""
    found = compare(table)
    return [sentences(table)[0], *(choices(found) if found else [])]


def _whole(table: Table) -> str:
    """All that a table says, a line for each sentence, then its arms from the best to the worst."""
    first, *more = sentences(table)
    text = f"\n**{table.title}.** {first}\n\n" + "".join(f"- {sentence}\n" for sentence in more)
    found = compare(table)
    return text if found is None else f"{text}\n{_ranked(found)}\n{markdown(ranking(found))}"


def _ranked(found: Differences) -> str:
    head = f"{capital(found.metric.label)}, average over {listed(found.table.common)}"
    return f"{head}; differences over the sizes that both arms have:\n"


def _so_far(older: Sequence[Table]) -> list[str]:
    """The main comparison of earlier rules, its caveat, and the choices of our own that were worse than others."""
    found = [one for table in older if (one := compare(table)) and one.strongest]
    first = next((one for one in found if not one.table.spec.ablation), None)
    if first is None:
        return []
    table, metric = first.table, first.metric
    means = {arm: table.means(arm, metric.key) for arm in table.arms}
    gain = gains_over_best(means, first.main, table.common, baselines=first.baselines, sign=metric.sign).mean
    each = "" if gain is None else f" Against the best baseline at each size: {signed(gain, metric.digits)} points."
    choices = [
        f"{one.main} against {one.strongest} {gap.text(metric.digits)} ({one.table.title})"
        for one in found
        if one.table.spec.ablation and (gap := one.against[one.strongest or ""].get(AVERAGE)) and gap.value < 0
    ]
    lines = [
        f"**{table.title}**, the main comparison so far: {sentences(table)[0]}{each}",
        f"Not settled: {EARLIER} ([History](#history)). Tables without these limits are being run.",
    ]
    return [*lines, f"Choices of ours that lose, in points on average: {listed(choices)}."] if choices else lines


def _folded(table: Table, page: Path) -> str:
    """A question, its answer, its picture, wins and losses; everything else behind a word."""
    found = compare(table)
    made = strip(found) if found else None
    picture = table.folder / table.picture
    said = found or table.spec.validation
    answer = sentences(table)[0] if said else "Trials, each a row; none is compared with the others here."
    parts = [f"### {question(table)}", f"**{table.title}.** {answer}"]
    if found and picture.is_file():
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
