"""``sweet bench check``: whether the results of a folder may be compared (design 7). Every violation is a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweet.errors import UserError
from sweet.tasks.registry import METRICS_OF, TASKS

from .cells import Table, means, read_sources, read_table

TOLERANCE = 0.05  # by which the pre-training FLOPs of two sources of one table may differ
SAME = ("n_train", "test_images", "classes", "data")  # of all cells of a column
SAME_RUNS = ("steps", "images_seen")


def check(out: Path) -> dict[str, Any]:
    """{"tables": how many were checked, "violations": [line]}. Raises UserError where no results lie."""
    tables = sorted({path.parent for task in TASKS for path in out.glob(f"*/*/{task}-*.json")})
    if not tables:
        raise UserError(f"--out {out}: holds no results of a bench")
    lines = [f"{table.relative_to(out)}: {line}" for table in tables for line in violations(out, table)]
    return {"tables": len(tables), "violations": lines}


def violations(out: Path, table: Path) -> Iterator[str]:
    """What is unfair or wrong in one table."""
    protocol, sources = table.parent.name, read_sources(out, table.parent.name)
    used: set[str] = set()
    for task in TASKS:
        cells = read_table(out, protocol, table.name, task)
        used |= {cell["source"] for cell in cells.values() if cell.get("source")}
        columns = list(dict.fromkeys(column for _, column in cells))
        for column in columns:
            yield from _of_column(column, {arm: cell for (arm, place), cell in cells.items() if place == column})
        yield from _layers(cells)
        yield from _relearned(cells)
        yield from _told(table, cells, task)
    yield from _budgets(used, sources)


def _budgets(used: set[str], sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Equal FLOPs, what each source is made from included. One that had a teacher, a row beside the others, may have
    taken more: its table prints them."""
    known = {name: sources[name]["pflops"] for name in sorted(used) if "pflops" in sources.get(name, {})}
    yield from (f"source {name}: the FLOPs of its pre-training are not told" for name in sorted(used - known.keys()))
    known = {name: pflops for name, pflops in known.items() if "teacher" not in sources[name]}
    least = min(known, key=lambda name: known[name], default="")
    for name, pflops in known.items():
        if pflops > known[least] * (1 + TOLERANCE):
            more = 100 * (pflops / known[least] - 1)
            yield f"source {name} took {pflops:g} PFLOPs, {more:.1f} % more than {least} with {known[least]:g}"


def _of_column(column: str, cells: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The same images, budget, seeds and test set for every start."""
    first = next(iter(cells))
    for arm, cell in cells.items():
        for key in SAME:
            if cell.get(key) != cells[first].get(key):
                yield f"{column}: {key} of {arm} is {cell.get(key)}, of {first} {cells[first].get(key)}"
        if _budget(cell) != _budget(cells[first]):
            yield f"{column}: {arm} is fine-tuned by another recipe than {first}"
        if cell["test_images"] != cell.get("test_set", cell["test_images"]):
            yield f"{column}: {arm} is tested on {cell['test_images']} of {cell['test_set']} images"
        for key in SAME_RUNS:
            values = sorted({run[key] for other in (cell, cells[first]) for run in other["runs"] if key in run})
            if len(values) > 1:
                yield f"{column}: {key} of {arm} differ, or differ from {first}: {values}"
    every = sorted({run["seed"] for cell in cells.values() for run in cell["runs"]})
    for arm, cell in cells.items():
        seeds = [run["seed"] for run in cell["runs"]]
        if seeds != every:
            yield f"{column}: {arm} has seeds {seeds}, others {every}"


def _budget(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's recipe but for the rate and its decay by layer, which a sweep may have found for each method."""
    recipe = {key: value for key, value in cell.get("recipe", {}).items() if key != "lr"}
    if "optim" in recipe:
        recipe["optim"] = {key: value for key, value in recipe["optim"].items() if key != "layer_decay"}
    return recipe


def _relearned(cells: Table) -> Iterator[str]:
    """One set of weights behind a source's name: learned again, on another machine, it is another source."""
    told: dict[str, set[str]] = {}
    for cell in cells.values():
        if cell.get("source"):
            told.setdefault(cell["source"], set()).update(
                run["source_sha256"] for run in cell["runs"] if "source_sha256" in run
            )
    yield from (
        f"source {name} was learned more than once: its checksums are {', '.join(sorted(sums))}"
        for name, sums in sorted(told.items())
        if len(sums) > 1
    )


def _layers(cells: Table) -> Iterator[str]:
    """One rule for the layers of all methods that have a choice."""
    rules = {
        arm: cell["switches"]["layers"] for (arm, _), cell in cells.items() if "layers" in cell.get("switches", {})
    }
    if len(set(rules.values())) > 1:
        yield "layers are chosen by " + ", ".join(f"{rule} for {arm}" for arm, rule in sorted(rules.items()))


def _told(table: Path, cells: Table, task: str) -> Iterator[str]:
    """Every mean of ``table.md``, computed again."""
    path = table / "table.md"
    if not cells or not path.is_file():
        return
    written = path.read_text(encoding="utf-8").splitlines()
    arms, columns = (list(dict.fromkeys(key[part] for key in cells)) for part in (0, 1))
    for metric in METRICS_OF[task]:
        for row in means(cells, arms, columns, metric):
            lines = [line for line in written if line.startswith(f"| {row['start']} |")]
            for column in columns:
                if row[column] != "-" and not any(f"| {row[column]} |" in line for line in lines):
                    yield f"table.md: {metric.label} of {row['start']} at {column} is {row[column]} by the results"
