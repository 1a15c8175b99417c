"""Results on disk: the one reader and the one writer of tables, cells and sources. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sweet.errors import UserError
from sweet.files import dotted, read_json, write_json
from sweet.storage.legacy import upgraded
from sweet.storage.records import Record, first_problem
from sweet.tasks.registry import TASKS

from .records import ArmSpec, CellResult, ColumnSpec, Run, SourceResult, TableSpec
from .table import Table

SPEC = "table.json"
SAME = ("recipe_hash", "n_train", "test_images", "patch_size")  # of all runs of a cell
R = TypeVar("R", bound=Record)


def result_path(out: Path, protocol: str, table: str, *, task: str, arm: str, size: str, set: str | None) -> Path:
    """Where a cell is kept: ``<out>/<protocol>/<table>/<task>-<arm>-<size>[-<set>].json``."""
    images = f"-{set}" if set else ""
    return out / protocol / table / f"{task}-{arm}-{size}{images}.json"


def write_spec(out: Path, spec: TableSpec) -> None:
    """Write what a table compares, beside its cells."""
    write_json(out / spec.protocol / spec.table / SPEC, spec.to_dict())


def read_spec(folder: Path) -> TableSpec | None:
    """What the table of a folder compares; None where it was measured before tables described themselves.

    Raises UserError naming file and key.
    """
    path = folder / SPEC
    return _parsed(TableSpec, read_json(path), path) if path.is_file() else None


def read_cell(path: Path) -> CellResult:
    """A cell with at least one run. Raises UserError naming file and key."""
    return _cell(read_json(path), path)


def add_run(path: Path, cell: CellResult, run: Run) -> None:
    """Add the run of one seed to the file of a cell, in place of an earlier one of the same seed.

    ``cell`` describes the run; its own ``runs`` are ignored. Raises UserError where the file holds runs of another
    recipe, number of images or patch size, and of a source that was learned again since then.
    """
    there = read_cell(path) if path.is_file() else cell.model_copy(update={"runs": ()})
    check_same(path, there, cell, SAME)
    others = [other for other in there.runs if other.seed != run.seed]
    for other in others:
        same = other.source == run.source and None not in (other.source_sha256, run.source_sha256)
        if same and other.source_sha256 != run.source_sha256:
            raise UserError(_differs(path, "source_sha256", other.source_sha256, run.source_sha256))
    runs = tuple(sorted([*others, run], key=lambda one: one.seed))
    write_json(path, there.model_copy(update={"runs": runs}).to_dict())


def check_same(path: Path, cell: CellResult, other: CellResult, keys: Sequence[str]) -> None:
    """Check that two descriptions of one cell agree in ``keys``: runs of different things have no mean.

    A key that either of them does not record is not compared. Raises UserError naming the file and the key; for a
    recipe, the key of the recipe.
    """
    for key in keys:
        was, now = getattr(cell, key), getattr(other, key)
        if was == now or was in (None, {}) or now in (None, {}):
            continue
        if key == "recipe_hash":  # the recipe says more; where it is the same, the rule for layers differs
            old, new = dotted(cell.recipe), dotted(other.recipe)
            different = [name for name in new if name in old and old[name] != new[name]]
            if not different and old.keys() != new.keys():
                raise UserError(f"{path}: measured by a version with other recipe keys; write to another --out")
            for name in different[:1]:
                key, was, now = name, old[name], new[name]
        raise UserError(_differs(path, key, was, now))


def find_tables(root: Path) -> list[Table]:
    """Every table below a folder: of one protocol after the other, and those of the paper before others.

    Raises UserError naming a damaged file.
    """
    folders = dict.fromkeys(
        path.parent
        for path in sorted(root.rglob("*.json"))
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    found = [table for folder in folders for table in read_tables(folder)]
    return sorted(
        found, key=lambda one: (one.spec.protocol, not one.spec.table.startswith("table"), one.spec.table)
    )  # sorted keeps the order of tasks


def read_tables(folder: Path, spec: TableSpec | None = None) -> list[Table]:
    """The table of a folder for each task that was measured, in the order of its columns.

    ``spec`` is what it compares, by default its ``table.json``. Raises UserError naming a damaged file.
    """
    cells: dict[Path, CellResult] = {}
    for path in sorted(folder.glob("*.json")):
        value = read_json(path)
        if isinstance(value, dict) and "runs" in value:
            cells[path] = _cell(value, path)
    if not cells:
        return []
    spec = _complete(spec or read_spec(folder) or _old_spec(folder, [*cells.values()]), cells.values())
    sources, tables = read_source_folder(folder.parent / "sources"), []
    for task in dict.fromkeys(column.task for column in spec.columns):
        own = {path: cell for path, cell in cells.items() if cell.task == task}
        if own:
            by_place = {(cell.arm, cell.column): cell for cell in own.values()}
            tables.append(Table(folder, spec, task, by_place, sources, tuple(own)))
    for table in tables:
        if not table.metrics:
            raise UserError(f"{folder}: its cells have no metric that this version knows")
    return tables


def _old_spec(folder: Path, cells: Sequence[CellResult]) -> TableSpec:
    """Of a folder that was written before tables described themselves; its arms and columns are those of its cells."""
    place, first = folder.resolve(), cells[0]
    ours = [cell.arm for cell in cells if cell.role == "ours"]
    return TableSpec(
        table=first.table or place.name,
        protocol=first.protocol or place.parent.name,
        arms=(),
        columns=(),
        main=ours[0] if ours and "sweet" not in ours else "sweet",
    )


def _complete(spec: TableSpec, cells: Iterable[CellResult]) -> TableSpec:
    """With the arms and columns that were measured by another version of the table, behind its own."""
    arms = {arm.name: arm for arm in spec.arms}
    columns = {(column.task, column.name): column for column in spec.columns}
    for cell in sorted(cells, key=lambda cell: list(TASKS).index(cell.task) if cell.task in TASKS else len(TASKS)):
        arms.setdefault(cell.arm, ArmSpec(name=cell.arm, method=cell.method or cell.arm, role=cell.role))
        column = ColumnSpec(size=cell.size, task=cell.task, set=cell.set, patch_size=cell.patch_size)
        columns.setdefault((cell.task, cell.column), column)
    return spec.model_copy(update={"arms": tuple(arms.values()), "columns": tuple(columns.values())})


def read_source_folder(folder: Path) -> dict[str, SourceResult]:
    """{name with hash: source} of the sources in a folder; empty where there is none.

    Raises UserError naming file and key.
    """
    found = (_parsed(SourceResult, read_json(path), path) for path in sorted(folder.glob("*.json")))
    return {source.source: source for source in found}


def write_source(out: Path, protocol: str, name: str, cached: str, result: Callable[[], SourceResult]) -> None:
    """Keep the record of a source, once; ``result()`` makes it. ``cached`` is its name in the cache.

    Another source that had the same ``name`` in a table keeps its own file.
    """
    folder = out / protocol / "sources"
    if cached in read_source_folder(folder):
        return
    taken = (folder / f"{name}.json").exists()
    file = f"{name}-{cached.rpartition('-')[2]}.json" if taken else f"{name}.json"
    write_json(folder / file, result().to_dict())


def _cell(values: Any, path: Path) -> CellResult:
    cell = _parsed(CellResult, values, path)
    if not cell.runs:
        raise UserError(f"{path}: has no run")
    return cell


def _parsed(record: type[R], values: Any, path: Path) -> R:
    if not isinstance(values, dict):
        raise UserError(f"{path}: not written by sweet bench")
    try:
        return record.model_validate(upgraded(values))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None


def check_source(path: Path, run: Run, wanted: str | None) -> None:
    """Raises UserError naming the file where a run starts from another source than ``wanted``."""
    if run.source != wanted:
        raise UserError(_differs(path, f"source of seed {run.seed}", run.source, wanted))


def _differs(path: Path, key: str, was: object, now: object) -> str:
    return f"{path}: {key} is {was}, this run has {now}; remove the file to start anew"
