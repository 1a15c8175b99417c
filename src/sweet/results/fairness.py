"""``sweet bench check``: whether the results of a folder may be compared (design 7). Every violation is a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from sweet.errors import UserError
from sweet.tasks.registry import METRICS_OF

from .costs import TOLERANCE
from .files import find_tables
from .records import CellResult
from .table import Table, unique

SAME = ("n_train", "test_images", "classes", "data")  # of all cells of a column
SAME_RUNS = ("steps", "images_seen")


class Fairness(TypedDict):
    """How many tables were checked, and a line for each violation."""

    tables: int
    violations: list[str]


def check(out: Path) -> Fairness:
    """Every table below a folder. Raises UserError where there are no results."""
    tables = find_tables(out)
    if not tables:
        raise UserError(f"--out {out}: holds no results of a bench")
    folders = dict.fromkeys(table.folder for table in tables)
    lines = [
        f"{folder.relative_to(out)}: {line}"
        for folder in folders
        for line in violations([table for table in tables if table.folder == folder])
    ]
    return {"tables": len(folders), "violations": lines}


def violations(tables: list[Table]) -> Iterator[str]:
    """What is unfair or wrong in one folder, whose tables are of several tasks."""
    for table in tables:
        for column in table.columns:
            yield from _of_column(column, {arm: cell for (arm, place), cell in table.cells.items() if place == column})
        yield from _layers(table)
        yield from _learned_again(table)
        yield from _written(table)
    yield from dict.fromkeys(line for table in tables for line in _budgets(table))


def _budgets(table: Table) -> Iterator[str]:
    """Equal FLOPs of the sources, what each is made from included.

    A source that had a teacher is a row beside the others and may have taken more: its table shows them.
    """
    used = sorted(unique(cell.source for cell in table.cells.values()))
    training = {name: table.sources[name].training for name in used if name in table.sources}
    known = {name: one.pflops for name, one in training.items() if one.pflops is not None}
    yield from (f"source {name}: the FLOPs of its pre-training are not recorded" for name in used if name not in known)
    fair = {name: pflops for name, pflops in known.items() if training[name].teacher is None}
    least = min(fair, key=lambda name: fair[name], default="")
    for name, pflops in fair.items():
        if pflops > fair[least] * (1 + TOLERANCE):
            more = 100 * (pflops / fair[least] - 1)
            yield f"source {name} took {pflops:g} PFLOPs, {more:.1f} % more than {least} with {fair[least]:g}"


def _of_column(column: str, cells: Mapping[str, CellResult]) -> Iterator[str]:
    """The same images, budget, seeds and test set for every arm."""
    first = next(iter(cells))
    for arm, cell in cells.items():
        for key in SAME:
            if getattr(cell, key) != getattr(cells[first], key):
                yield f"{column}: {key} of {arm} is {getattr(cell, key)}, of {first} {getattr(cells[first], key)}"
        if _budget(cell) != _budget(cells[first]):
            yield f"{column}: {arm} is fine-tuned by another recipe than {first}"
        if cell.test_set is not None and cell.test_images != cell.test_set:
            yield f"{column}: {arm} is tested on {cell.test_images} of {cell.test_set} images"
        for key in SAME_RUNS:
            values = sorted({*cell.values(key).values(), *cells[first].values(key).values()})
            if len(values) > 1:
                yield f"{column}: {key} of {arm} differ, or differ from {first}: {values}"
    every = sorted({run.seed for cell in cells.values() for run in cell.runs})
    for arm, cell in cells.items():
        seeds = [run.seed for run in cell.runs]
        if seeds != every:
            yield f"{column}: {arm} has seeds {seeds}, others {every}"


def _budget(cell: CellResult) -> dict[str, object]:
    """A cell's recipe without the rate and its decay by layer, which a sweep may have found for each method."""
    recipe = {key: value for key, value in cell.recipe.items() if key != "lr"}
    if "optim" in recipe:
        recipe["optim"] = {key: value for key, value in recipe["optim"].items() if key != "layer_decay"}
    return recipe


def _learned_again(table: Table) -> Iterator[str]:
    """One set of weights behind the name of a source: learned again, on another machine, it is another source."""
    for name in sorted(unique(cell.source for cell in table.cells.values())):
        cells = [cell for cell in table.cells.values() if cell.source == name]
        sums = sorted(unique(run.source_sha256 for cell in cells for run in cell.runs))
        if len(sums) > 1:
            yield f"source {name} was learned more than once: its checksums are {', '.join(sums)}"


def _layers(table: Table) -> Iterator[str]:
    """One rule for the layers of all methods that have a choice."""
    rules = {arm: cell.switches["layers"] for (arm, _), cell in table.cells.items() if "layers" in cell.switches}
    if len(set(rules.values())) > 1:
        yield "layers are chosen by " + ", ".join(f"{rule} for {arm}" for arm, rule in sorted(rules.items()))


def _written(table: Table) -> Iterator[str]:
    """Every mean of ``table.md``, computed again."""
    path = table.folder / "table.md"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for metric in METRICS_OF[table.task] if lines else ():
        for arm in table.arms:
            rows = [line for line in lines if line.startswith(f"| {arm} |")]
            for column in table.columns:
                mean = table.mean(arm, column, metric.key)
                if mean and not any(f"| {mean.text(metric)} |" in row for row in rows):
                    yield f"table.md: {metric.label} of {arm} at {column} is {mean.text(metric)} by the results"
