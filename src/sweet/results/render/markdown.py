"""``docs/results.md``: what was measured, in words and tables, from the JSON files alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sweet.results.cells import markdown
from sweet.results.compare import compare, sentences
from sweet.results.paper import paper, paper_table
from sweet.results.read import BenchTable
from sweet.results.tables import (
    budget_note,
    cost_rows,
    facts,
    gain_rows,
    paired_rows,
    record_rows,
    score_rows,
    size_rows,
    start_rows,
)
from sweet.tasks.registry import METRICS

HEAD = """# Results

Written by `{command}` from the JSON files of `sweet bench`; no number is typed by hand.

A cell is *mean ± standard deviation (seeds)* on held-out images. Differences are paired over seeds, and turned so that
above zero ours is better: *gain* and *worse* are two standard errors or more, *no gain* is less, *one seed* shows
nothing. Few seeds make a standard error itself uncertain: a star marks what a paired t test at 95 % sees as well. Each
arm starts from one pre-trained source, so the spread is that of fine-tuning, not of pre-training. Rows of *{label}*
are what the paper ({paper}) prints, on other data at another scale: compare the order of its rows with ours, not the
numbers. A paired difference uses only the seeds that both rows have, so it may differ from that of the means.
"""


def results_page(tables: Sequence[BenchTable], page: Path, command: str) -> str:
    """The whole page; links are relative to where ``page`` lies."""
    text = HEAD.format(command=command, label=paper()["label"], paper=paper()["paper"])
    text += "\n## In short\n\n" + "".join(f"- **{table.title}**: {_short(table)}\n" for table in tables)
    return text + "".join(_section(table, page) for table in tables)


def summary(table: BenchTable) -> str:
    """Who wins where, how often, and how far runs spread."""
    return " ".join(sentences(table))


def _short(table: BenchTable) -> str:
    return sentences(table)[0]


def _section(table: BenchTable, page: Path) -> str:
    comparison = compare(table)
    told = paper_table(table.name, table.task)
    parts = [f"\n## {table.title}\n", summary(table)]
    parts.append(", ".join(f"{key} {value}" for key, value in facts(table).items()) + ". " + budget_note(table))
    parts.append(_links(table, page))
    if rows := start_rows(table):
        parts.append(markdown(rows))
    for metric in table.metrics:
        rows = score_rows(table, metric)
        beside = told and any(paper()["label"] in row["start"] for row in rows)
        below = f"\nRows of the paper: {told['title']}.\n" if told and beside else ""
        parts.append(f"### {METRICS[metric].label}\n\n{markdown(rows)}{below}")
    if comparison is not None:
        gains = gain_rows(table, comparison)
        label = METRICS[comparison.metric].label
        if gains:
            parts.append(f"### Gain over the best rival, {label}\n\n{markdown(gains)}")
        parts.append(f"### Wins, ties and losses, {label}\n\n{markdown(record_rows(comparison))}")
        parts.append(f"### Paired differences, {label}\n\n{markdown(paired_rows(comparison))}")
    if sizes := size_rows(table):
        parts.append(f"### Sizes of the targets\n\n{markdown(sizes)}")
    parts.append(f"### Cost\n\nMedians over seeds, averaged over sizes.\n\n{markdown(cost_rows(table))}")
    return "\n".join(part.rstrip() + "\n" for part in parts if part.strip())


def _links(table: BenchTable, page: Path) -> str:
    here = page.absolute().parent
    words = {"table.md": "table", "table.png": "picture"}
    found = [
        f"[{word}]({_relative(table.folder / name, here)})"
        for name, word in words.items()
        if (table.folder / name).is_file()
    ]
    return "As written by the bench: " + ", ".join([*found, f"[JSON files]({_relative(table.folder, here)})"]) + "."


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path.absolute(), start)).as_posix()
