"""Columns of parquet files that hold several labels an image: numbers or names of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweet.errors import UserError

from .class_names import class_names_beside, one_spelling


def is_list(column: pa.DataType) -> bool:
    """Whether a column holds lists of any length, or of a fixed one."""
    return pa.types.is_list(column) or pa.types.is_large_list(column) or pa.types.is_fixed_size_list(column)


def read_lists(
    column: pa.ChunkedArray, feature: Any, name: str, first: Path, where: Callable[[int], str]
) -> tuple[list[list[int]], list[str]]:
    """The class indices of every image and the names of all classes.

    Names come from the schema, else from ``classes.txt``, else they are the labels of all files of the folder: names as
    they stand there, sorted, or the numbers themselves. ``first`` is the first file, ``where`` names a row. Raises
    UserError naming the row of a label without a class.
    """
    values = [sorted(set(map(_spelled, several or ())), key=str) for several in column.to_pylist()]
    named = pa.types.is_string(column.type.value_type) or pa.types.is_large_string(column.type.value_type)
    if not (named or pa.types.is_integer(column.type.value_type)):
        raise UserError(f"{first}: column {name} holds {column.type}, expected lists of numbers or names")
    classes = _names_of(feature) or class_names_beside(first) or _all_labels(values, first.parent, name, named)
    number = {label: index for index, label in enumerate(classes if named else range(len(classes)))}
    for row, several in enumerate(values):
        for label in several:
            if label not in number:
                raise UserError(f"{where(row)}: {name} has {label!r}, which is none of {len(classes)} classes")
    return [sorted(number[label] for label in several) for several in values], classes


def _names_of(feature: Any) -> list[str] | None:
    """Class names of a list of ClassLabel, as any version of Hugging Face's datasets describes it."""
    inner = feature[0] if isinstance(feature, list) and feature else (feature or {})
    inner = inner.get("feature", inner) if isinstance(inner, Mapping) else {}
    names = inner.get("names") if isinstance(inner, Mapping) else None
    return [one_spelling(name) for name in names] if names else None


def _all_labels(values: list[list[Any]], folder: Path, name: str, named: bool) -> list[str]:
    """Those, and all in the column of any parquet file of the folder, so that all splits have the same classes."""
    found: set[Any] = set(_flat(values))
    for file in sorted(folder.glob("*.parquet")):
        if name in pq.read_schema(file).names:
            found |= set(map(_spelled, _flat(pq.read_table(file, columns=[name])[name].to_pylist())))
    found.discard(None)  # the row that holds it is named by the caller
    if not found:
        raise UserError(f"{folder}: no image has a label in the column {name}")
    return sorted(found) if named else [str(number) for number in range(max(found) + 1)]


def _spelled(label: Any) -> Any:
    return one_spelling(label) if isinstance(label, str) else label


def _flat(lists: Iterable[Iterable[Any] | None]) -> Iterable[Any]:
    return (label for several in lists for label in several or ())
