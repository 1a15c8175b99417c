"""Results on disk: the one reader and the one writer of tables, cells and sources. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sweet.errors import UserError
from sweet.files import dotted, read_json, write_json
from sweet.storage.legacy import upgraded
from sweet.storage.records import Record

from .records import CellResult, Run, SourceResult, TableSpec

SPEC = "table.json"
SAME = ("recipe_hash", "n_train", "test_images", "patch_size", "source")  # of all runs of a cell
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
    cell = _parsed(CellResult, read_json(path), path)
    if not cell.runs:
        raise UserError(f"{path}: has no run")
    return cell


def add_run(path: Path, cell: CellResult, run: Run) -> None:
    """Add the run of one seed to the file of a cell, in place of an earlier one of the same seed.

    ``cell`` describes the run; its own ``runs`` are ignored. Raises UserError where the file holds runs of another
    recipe, number of images, patch size or source. A source that was learned again has another checksum and is another
    source.
    """
    there = read_cell(path) if path.is_file() else cell.model_copy(update={"runs": ()})
    check_same(path, there, cell, SAME)
    others = [other for other in there.runs if other.seed != run.seed]
    for other in others:
        if None not in (other.source_sha256, run.source_sha256) and other.source_sha256 != run.source_sha256:
            raise UserError(_differs(path, "source_sha256", other.source_sha256, run.source_sha256))
    runs = tuple(sorted([*others, run], key=lambda one: one.seed))
    write_json(path, there.model_copy(update={"runs": runs}).to_dict())


def check_same(path: Path, cell: CellResult, other: CellResult, keys: Sequence[str]) -> None:
    """Check that two descriptions of one cell agree in ``keys``: runs of different things have no mean.

    A key that either of them does not record is not compared, except for ``source``: its absence means a start without
    one. Raises UserError naming the file and the key; for a recipe, the key of the recipe.
    """
    for key in keys:
        was, now = getattr(cell, key), getattr(other, key)
        if was == now or (key != "source" and (was in (None, {}) or now in (None, {}))):
            continue
        if key == "recipe_hash":  # the recipe says more; where it is the same, the rule for layers differs
            old, new = dotted(cell.recipe), dotted(other.recipe)
            different = [name for name in new if name in old and old[name] != new[name]]
            if not different and old.keys() != new.keys():
                raise UserError(f"{path}: measured by a version with other recipe keys; write to another --out")
            for name in different[:1]:
                key, was, now = name, old[name], new[name]
        raise UserError(_differs(path, key, was, now))


def read_sources(out: Path, protocol: str) -> dict[str, SourceResult]:
    """{name with hash: source} of the sources of a protocol. Raises UserError naming file and key."""
    return read_source_folder(out / protocol / "sources")


def read_source_folder(folder: Path) -> dict[str, SourceResult]:
    """{name with hash: source} of the sources in a folder; empty where there is none."""
    found = (_parsed(SourceResult, read_json(path), path) for path in sorted(folder.glob("*.json")))
    return {source.source: source for source in found}


def write_source(out: Path, protocol: str, name: str, source: SourceResult) -> None:
    """Keep the record of a source, once. Another source that had the same ``name`` in a table keeps its own file."""
    folder = out / protocol / "sources"
    if source.source in read_source_folder(folder):
        return
    taken = (folder / f"{name}.json").exists()
    file = f"{name}-{source.source.rpartition('-')[2]}.json" if taken else f"{name}.json"
    write_json(folder / file, source.to_dict())


def _parsed(record: type[R], values: Any, path: Path) -> R:
    if not isinstance(values, dict):
        raise UserError(f"{path}: not written by sweet bench")
    try:
        return record.model_validate(upgraded(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from None


def _differs(path: Path, key: str, was: object, now: object) -> str:
    return f"{path}: {key} is {was}, this run has {now}; remove the file to start anew"
