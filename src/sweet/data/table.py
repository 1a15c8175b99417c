"""Images and their labels as a CSV file lists them, several labels an image or one.

A table is ``image,labels`` with ``;`` between the labels of an image, or it has a column of 0 and 1 for each class, as
Roboflow writes it. A column ``split`` says which split a row is of. An image that stands in several rows has the labels
of all of them. An empty cell is an image with none of the classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sweet.errors import UserError
from sweet.files import decode_text

from .class_names import class_names_beside, on_disk, one_spelling
from .findings import Finding, some_names
from .folder import FolderImages
from .images import digest
from .splits import Splits, split_folders

TABLES = ("labels.csv", "_classes.csv")  # names of tables in a folder
IMAGE_COLUMNS = ("image", "filename", "file_name", "file", "path", "image_path")
LABEL_COLUMNS = ("labels", "label", "tags", "classes", "class")
SPLIT, BETWEEN = "split", ";"

Entries = dict[Path, list[list[str]]]  # {image file: the labels of each of its rows}


@dataclass(frozen=True)
class Table:
    """One CSV file: {split: its entries}; ``classes`` in the order of their columns, where they have some.

    The split of rows that name none is ``""``.
    """

    file: Path
    splits: dict[str, Entries]
    classes: list[str] | None


class TableImages(FolderImages):
    """The images of one split, with ``label_lists``, and ``labels`` where each image has exactly one."""

    def __init__(self, name: str, split: str, entries: Entries, classes: list[str]) -> None:
        number = {label: index for index, label in enumerate(classes)}
        lists = [list(dict.fromkeys(number[label] for row in rows for label in row)) for rows in entries.values()]
        single = [one[0] for one in lists] if all(len(one) == 1 for one in lists) else None
        super().__init__(name, split, [str(file) for file in entries], single, classes)
        self.label_lists = lists
        self.repeated = {file.name: {frozenset(row) for row in rows} for file, rows in entries.items() if len(rows) > 1}

    def findings(self) -> list[Finding]:
        """Besides: images that stand in several rows."""
        found = super().findings()
        for differs, what, handling in (
            (False, "images in several rows with the same labels", "each counts once"),
            (
                True,
                "images in several rows with different labels",
                "each has the labels of all its rows: multilabel learns them, classify refuses them",
            ),
        ):
            if names := [name for name, rows in self.repeated.items() if (len(rows) > 1) == differs]:
                found.append(Finding(self.split, some_names(names, what), handling))
        return found

    def fingerprint(self) -> str:
        return digest("table", super().fingerprint())


def table_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of a CSV file, of ``labels.csv`` in a folder, or of one in each of its split folders.

    Images lie beside their table or in ``images/`` there. Raises UserError naming the file, the line and the value.
    """
    if path.is_file():
        found = {"": path}
    elif path.is_dir():
        found = {name: table for name in ("", *split_folders(path)) if (table := _table_in(path / name))}
    else:
        raise UserError(f"--data {spec}: no such file or folder")
    if not found:
        raise UserError(f"--data {spec}: no {' or '.join(TABLES)} in {path} or in train/, val/, test/ there")
    tables = {folder: read_table(file) for folder, file in found.items()}
    classes = _all_classes(list(tables.values()))
    splits: Splits = {}
    for folder, read in tables.items():
        for named, entries in read.splits.items():
            split = named or folder or "train"
            if split in splits:
                raise UserError(f"--data {spec}: two tables name the split {split}")
            splits[split] = partial(TableImages, spec, split, entries, classes)
    return splits


def read_table(file: Path) -> Table:
    """Read and check one CSV file, its images included. Raises UserError naming the line."""
    rows = [(number, row) for number, row in _rows(file) if any(row)]
    if not rows:
        raise UserError(f"{file}: is empty")
    header = [one_spelling(cell.strip()) for cell in rows[0][1]]
    named = header[0].lower() in IMAGE_COLUMNS
    columns = _columns(file, header) if named else _Columns(1, None, {})
    splits: dict[str, Entries] = {}
    for number, row in rows[1:] if named else rows:
        width = len(header) if named else 2
        if len(row) != width:
            raise UserError(f"{file}:{number}: {len(row)} columns, expected {width} (image,labels)")
        cells = [cell.strip() for cell in row]
        split = cells[columns.split] if columns.split is not None else ""
        rows_of = splits.setdefault(split, {}).setdefault(_image(file, number, cells[0]), [])
        rows_of.append(columns.labels(file, number, cells))
    if not splits:
        raise UserError(f"{file}: lists no images")
    return Table(file, splits, list(columns.classes.values()) or None)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows and the line that each begins at. Raises UserError for an open quote: the others would be lost."""
    lines = decode_text(file).splitlines(keepends=True)
    delimiter = "\t" if lines and "\t" in lines[0] and "," not in lines[0] else ","
    reader, first = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True), 1
    try:
        for row in reader:
            yield first, row
            first = reader.line_num + 1
    except csv.Error as problem:
        raise UserError(f"{file}:{first}: not a row of a CSV file ({problem}); look for an odd quote") from None


@dataclass(frozen=True)
class _Columns:
    """Where the labels of an image stand: in one column, or in one for each class (then ``list_`` is None)."""

    list_: int | None
    split: int | None
    classes: dict[int, str]

    def labels(self, file: Path, number: int, cells: Sequence[str]) -> list[str]:
        if self.list_ is not None:
            return [one_spelling(label.strip()) for label in cells[self.list_].split(BETWEEN) if label.strip()]
        for place, name in self.classes.items():
            if cells[place] not in ("0", "1"):
                raise UserError(f"{file}:{number}: {name} is {cells[place]!r}, expected 0 or 1")
        return [name for place, name in self.classes.items() if cells[place] == "1"]


def _columns(file: Path, header: Sequence[str]) -> _Columns:
    lower = [name.lower() for name in header]
    split = lower.index(SPLIT) if SPLIT in lower else None
    others = [place for place in range(1, len(header)) if place != split]
    if len(others) == 1 and lower[others[0]] in LABEL_COLUMNS:
        return _Columns(others[0], split, {})
    classes = {place: header[place] for place in others}
    if not classes or "" in classes.values() or len(set(classes.values())) < len(classes):
        raise UserError(f"{file}:1: {','.join(header)}: expected image,labels or image and a column for each class")
    return _Columns(None, split, classes)


def _image(file: Path, number: int, name: str) -> Path:
    for folder in (file.parent, file.parent / "images"):
        if name and (found := on_disk(folder, name)):
            return found
    raise UserError(f"{file}:{number}: no such image file {file.parent / name}")


def _table_in(folder: Path) -> Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _all_classes(tables: Sequence[Table]) -> list[str]:
    """Those of ``classes.txt`` beside a table, else the columns', else all labels, sorted. Raises UserError."""
    entries = [rows for table in tables for split in table.splits.values() for rows in split.values()]
    used = {label for rows in entries for row in rows for label in row}
    listed = class_names_beside(tables[0].file)
    if listed is None and all(table.classes for table in tables):
        listed = list(dict.fromkeys(name for table in tables for name in table.classes or ()))
    if listed is None:
        listed = sorted(used)
    if unknown := sorted(used - set(listed)):
        raise UserError(f"{tables[0].file}: the label {unknown[0]!r} is not in classes.txt beside it")
    if not used:
        raise UserError(f"{tables[0].file}: no image has a label")
    return listed
