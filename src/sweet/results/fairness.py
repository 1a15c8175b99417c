"""``sweet bench check``: whether the results of a folder may be compared. Every violation is a line.

Of tables that were measured by earlier rules only what those had: one set of sources, whatever the seed; and nothing
of trials that are compared with no arm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from sweet.errors import UserError
from sweet.tasks.registry import METRICS_OF

from .choices import CONDITIONED, best, chosen_for, is_at_edge, row_of, variants
from .costs import TOLERANCE
from .files import find_tables
from .records import RULES, CellResult, Run
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
        for line in violations(
            [table for table in tables if table.folder == folder],
            [table for table in tables if table.folder.parent == folder.parent],
        )
    ]
    return {"tables": len(folders), "violations": lines}


def violations(tables: list[Table], others: Sequence[Table] = ()) -> Iterator[str]:
    """What is unfair or wrong in one folder, whose tables are of several tasks.

    ``others`` are tables that may have chosen its settings.
    """
    compared = [table for table in tables if table.spec.version >= RULES or table.main is not None]
    for table in tables:
        for column in table.columns if table in compared else ():
            yield from _of_column(table, column)
        yield from _learned_again(table)
        yield from _written(table)
        if table.spec.validation:
            yield from _edges(table)
        if table.spec.version >= RULES:
            yield from _complete(table)
            yield from _mixed(table)
            yield from _not_as_chosen(table, others)
    yield from dict.fromkeys(line for table in compared for line in _budgets(table))


def _budgets(table: Table) -> Iterator[str]:
    """Equal FLOPs of the sources of a replicate, what each is made from included.

    A source that had a teacher is a row beside the others and may have taken more: its table shows them. One of each
    size is charged with fewer, and has as many images and steps as a dense source of the table.
    """
    used = sorted({name for cell in table.cells.values() for name in cell.sources})
    training = {name: table.sources[name].training for name in used if name in table.sources}
    known = {name: one.pflops for name, one in training.items() if one.pflops is not None}
    yield from (f"source {name}: the FLOPs of its pre-training are not recorded" for name in used if name not in known)
    own = {name for arm in table.of_each_size for cell in table.cells_of(arm) for name in cell.sources}
    fair = {name: pflops for name, pflops in known.items() if training[name].teacher is None and name not in own}
    least = min(fair, key=lambda name: fair[name], default="")
    for name, pflops in fair.items():
        if pflops > fair[least] * (1 + TOLERANCE):
            more = 100 * (pflops / fair[least] - 1)
            yield f"source {name} took {pflops:g} PFLOPs, {more:.1f} % more than {least} with {fair[least]:g}"
    dense = [name for name in fair if table.sources[name].constraint == "none"]
    for name in sorted(own & training.keys()):
        seen = {(training[one].images, training[one].steps) for one in dense}
        if seen and (training[name].images, training[name].steps) not in seen:
            images, steps = next(iter(seen))
            took = f"{training[name].images} images in {training[name].steps} steps"
            yield f"source {name} took {took}, a source of the table {images} in {steps}"


def _complete(table: Table) -> Iterator[str]:
    """All rows of a replicate, in every column that is to have it, once any is there."""
    for column in table.columns:
        begun = {run.seed for (_, place), cell in table.cells.items() if place == column for run in cell.runs}
        for arm in table.spec.arms:
            if table.spec.validation and arm.name not in table.arms:
                continue  # a rate that the sweep did not come to
            missing = sorted(begun - table.values(arm.name, column, table.metrics[0].key).keys())
            if missing and column in table.makes(arm.name):
                yield f"{column}: {arm.name} lacks replicate {', '.join(map(str, missing))}"


def _mixed(table: Table) -> Iterator[str]:
    """One kind of machine, one precision and one version of the training code for what is compared with each other.

    That is a replicate of all rows of a column, or of all variants of a row in a sweep; columns, and the rows of a
    sweep, may be measured on machines of their own.
    """
    compared: dict[tuple[str, int], list[Run]] = {}
    for (arm, column), cell in table.cells.items():
        for run in cell.runs:
            compared.setdefault((row_of(arm) if table.spec.validation else column, run.seed), []).append(run)
    for (what, seed), runs in sorted(compared.items()):
        sources = [table.sources[name] for name in unique(run.source for run in runs) if name in table.sources]
        measured = [one.environment for one in runs] + [one.environment for one in sources if one.training.steps]
        found: dict[str, set[object]] = {
            "machines": {machine(one) for one in measured if one},
            "precisions": {run.precision for run in runs} | {one.training.precision for one in sources} - {""},
            "versions of the training code": {run.code for run in runs} | {one.code for one in sources},
        }
        for kind, values in found.items():
            if len(values) > 1:
                yield f"{what}: replicate {seed} has several {kind}: {', '.join(sorted(map(str, values)))}"
        if not table.spec.one_source:
            other = sorted({one.source for one in sources if one.seed != seed})
            yield from (f"{what}: replicate {seed} starts from source {name} of another one" for name in other)


def machine(environment: Mapping[str, object]) -> str:
    """The kind of a machine: its GPU, or the instructions of its CPU."""
    return str(environment.get("gpu") or f"CPU {environment.get('cpu', 'of unknown instructions')}")


def _edges(table: Table) -> Iterator[str]:
    """A sweep whose best rate is the lowest or the highest has not ended."""
    for row, ones in variants(table).items():
        if is_at_edge(ones):
            tried = ", ".join(f"{one.lr:g}" for one in ones)
            yield f"the best rate of {row}, {best(ones).lr:g}, is at the edge of those that were tried: {tried}"


def _not_as_chosen(table: Table, others: Sequence[Table]) -> Iterator[str]:
    """Every rate and switch is the one that a sweep of the table has chosen; a row of no sweep has the table's own."""
    spec, rated, swept = table.spec, [], set[str]()
    if spec.validation or not spec.chosen_by:
        return
    for other in others:
        if other.spec.protocol == spec.protocol and other.spec.table in spec.chosen_by:
            found = variants(other)
            swept |= {row_of(one.name) for one in other.spec.arms}
            rated.append({row: ones for row, ones in found.items() if len({one.lr for one in ones}) > 1})
            for arm in table.arms:
                yield from _other_switches(table, arm, other, [one.arm for one in chosen_for(arm, found)])
    for arm in table.arms:
        wanted = next((chosen[-1] for found in rated if (chosen := chosen_for(arm, found))), None)
        rates = sorted({float(cell.recipe.get("lr", 0)) for cell in table.cells_of(arm)})
        if wanted is None:
            if not swept or swept & {arm, arm.removesuffix(CONDITIONED)}:
                yield f"{arm}: no sweep has chosen its rate"
        elif rates != [wanted.lr]:
            yield f"{arm} is fine-tuned at {', '.join(f'{lr:g}' for lr in rates)}, the sweep has chosen {wanted.lr:g}"


def _other_switches(table: Table, arm: str, sweep: Table, chosen: Sequence[str]) -> Iterator[str]:
    """What a sweep has varied, where a cell of ``arm`` has another value than the ``chosen`` of the sweep's arms."""
    wanted: dict[str, object] = {}
    for variant in chosen:
        switches = sweep.cells_of(variant)[0].switches
        for one in (name for name in sweep.arms if row_of(name) == row_of(variant)):
            other = sweep.cells_of(one)[0].switches
            varied = (key for key in {**switches, **other} if switches.get(key) != other.get(key))
            wanted |= {key: switches.get(key) for key in varied}
    for cell in table.cells_of(arm):
        for key, value in wanted.items():
            if cell.switches.get(key) != value:
                yield f"{cell.column}: {arm} has {key}={cell.switches.get(key)}, the sweep has chosen {value}"


def _of_column(table: Table, column: str) -> Iterator[str]:
    """The same images, budget, seeds and test set for every arm."""
    cells = {arm: cell for (arm, place), cell in table.cells.items() if place == column}
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
    for arm, cell in cells.items() if table.spec.version < RULES else ():
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
    """One set of weights behind the name of a source: learned again, on another machine, it is another source.

    A conversion that is made again differs by rounding alone.
    """
    sums: dict[str, set[str]] = {}
    for run in table.runs:
        if run.source is not None and run.source_sha256 is not None:
            sums.setdefault(run.source, set()).add(run.source_sha256)
    for name, found in sorted(sums.items()):
        source = table.sources.get(name)
        if len(found) > 1 and (source is None or source.training.steps):
            yield f"source {name} was learned more than once: its checksums are {', '.join(sorted(found))}"


def _written(table: Table) -> Iterator[str]:
    """Every mean of ``table.md``, computed again."""
    path = table.folder / "table.md"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for metric in METRICS_OF.get(table.task, ()) if lines else ():
        for arm in table.arms:
            rows = [line for line in lines if line.startswith(f"| {arm} |")]
            for column in table.columns:
                mean = table.mean(arm, column, metric.key)
                if mean and not any(f"| {mean.text(metric)} |" in row for row in rows):
                    yield f"table.md: {metric.label} of {arm} at {column} is {mean.text(metric)} by the results"
