"""Images in Arrow tables: parquet files in the Hugging Face layout, and datasets of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweet.errors import UserError
from sweet.files import cache_folder, replacing

from .bands import Stored
from .class_names import class_names_beside, one_spelling
from .decode import open_stored
from .images import ImageSource, digest, stamps
from .list_columns import is_list, read_lists
from .splits import Splits

IN_MEMORY_BYTES = 1 << 30  # above this the encoded images are memory-mapped from the cache folder
Feature = Mapping[str, Any]  # the type of a column as Hugging Face's schema describes it
SHARD = re.compile(r"(?P<split>\w+)(-\d+-of-\d+|-.*)?\.parquet")  # train-00000-of-00002.parquet, train.parquet


class ArrowImages(ImageSource):
    """Encoded images in a column ``struct<bytes, path>`` of an Arrow table."""

    def __init__(
        self,
        name: str,
        split: str,
        table: pa.Table,
        files: list[tuple[int, str]],
        fingerprint: str,
        count_classes: Callable[[], int] | None = None,
    ) -> None:
        """``files``: (first row, name) of every file in the table. Raises UserError on missing columns.

        ``count_classes`` counts the classes of all splits where nothing names them.
        """
        self._count_classes = count_classes
        self._files = files
        self._fingerprint = fingerprint
        image, label, lists = columns(table.schema, files[0][1])
        labels = None if label is None else read_labels(table[label], label, self.where)
        classes = self._class_names(labels, features(table.schema).get(label or "")) if labels else None
        super().__init__(name, split, table.num_rows, labels, classes)
        if lists is not None:
            feature = features(table.schema).get(lists)
            self.label_lists, self.classes = read_lists(table[lists], feature, lists, Path(files[0][1]), self.where)
        self._bytes, self._paths = encoded(table[image]), paths(table[image])

    def open(self, index: int) -> Stored:
        data = self.stored(index)
        if data is None:
            raise UserError(f"{self.where(index)}: the image has no bytes")
        return open_stored(data)

    def stored(self, index: int) -> bytes | None:
        data: bytes | None = self._bytes[index].as_py()
        if data is None and self._paths is not None:  # of a hub repository of image files: they lie beside the table
            path = self._paths[index].as_py()
            data = Path(path).read_bytes() if path and Path(path).is_file() else None
        return data

    def where(self, index: int) -> str:
        first, file = self._files[bisect_right(self._files, index, key=lambda entry: entry[0]) - 1]
        return f"{file} row {index - first}"

    def fingerprint(self) -> str:
        if self._paths is None or not self._bytes.null_count:
            return self._fingerprint
        beside = self._paths.filter(self._bytes.is_null()).to_pylist()  # they change without the table
        return digest(self._fingerprint, *stamps(path for path in beside if path))

    def _class_names(self, labels: list[int], feature: Feature | None) -> list[str]:
        """From the schema, else from ``classes.txt``, else the numbers themselves."""
        names = (feature or {}).get("names") or class_names_beside(Path(self._files[0][1]))
        if names is None:
            count = max(labels) + 1 if self._count_classes is None else self._count_classes()
            return [str(number) for number in range(count)]
        return checked_names(names, labels, self.where)


def read_labels(column: pa.ChunkedArray, name: str, where: Callable[[int], str]) -> list[int] | None:
    """The labels of a column; None when no image has one (all null, or -1 as the hub writes it).

    ``where`` names the row of a wrong one in the UserError that it raises.
    """
    if pa.types.is_null(column.type):
        return None
    if not pa.types.is_integer(column.type):
        raise UserError(f"{where(0)}: column {name} holds {column.type}, expected integers")
    values: list[int | None] = column.to_pylist()
    missing = [row for row, value in enumerate(values) if value is None or value < 0]
    if len(missing) == len(values):
        return None
    if missing:
        raise UserError(f"{where(missing[0])}: {name} is {values[missing[0]]}, expected 0 or more")
    return [value for value in values if value is not None]


def checked_names(names: list[str], labels: list[int], where: Callable[[int], str]) -> list[str]:
    """The names of classes in one spelling. Raises UserError for a label beyond them."""
    for row, label in enumerate(labels):
        if label >= len(names):
            raise UserError(f"{where(row)}: label {label}, but there are {len(names)} class names")
    return [one_spelling(name) for name in names]


def parquet_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of ``<split>-*.parquet`` in the folder or its ``data`` folder, or of one file (train)."""
    if not path.exists():
        raise UserError(f"--data {spec}: no such file or folder")
    if path.is_file():
        return {"train": partial(_open_parquet, spec, "train", [path])}
    files = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    groups: dict[str, list[Path]] = {}
    for file in files:
        if match := SHARD.fullmatch(file.name):
            groups.setdefault(match["split"], []).append(file)
    if not groups:
        raise UserError(f"--data {spec}: no files named <split>-*.parquet")
    count_classes = partial(_count_classes, groups)
    return {split: partial(_open_parquet, spec, split, shards, count_classes) for split, shards in groups.items()}


def _count_classes(groups: Mapping[str, list[Path]]) -> int:
    """One more than the largest label of any split: classes without names are the same in all of them."""
    largest = -1
    for file in (file for files in groups.values() for file in files):
        parquet = _parquet(file)
        label = columns(parquet.schema_arrow, str(file))[1]
        if label is not None and pa.types.is_integer(parquet.schema_arrow.field(label).type):
            largest = max(largest, pc.max(parquet.read(columns=[label])[label]).as_py() or 0)
    return largest + 1


def hub_splits(spec: str, name: str) -> Splits:
    """{split: opens it} of a dataset of the hub, ``NAME`` or ``NAME:CONFIG``; downloads on opening."""
    import datasets

    repo, _, config = name.partition(":")
    with hub_errors(spec):
        names = datasets.get_dataset_split_names(repo, config or None)
    return {split: partial(_open_hub, spec, repo, config or None, split) for split in names}


@contextmanager
def hub_errors(spec: str) -> Iterator[None]:
    """The hub's client raises many types (offline, unknown name, private): a UserError that names the set."""
    try:
        yield
    except Exception as problem:
        raise UserError(f"--data {spec}: cannot be read from the hub ({problem})") from problem


def _open_hub(spec: str, repo: str, config: str | None, split: str) -> ImageSource:
    import datasets

    with hub_errors(spec):
        data = datasets.load_dataset(repo, config, split=split)
    return ArrowImages(spec, split, data.data.table, [(0, f"{spec} {split}")], data._fingerprint)


def _open_parquet(
    spec: str, split: str, files: list[Path], count_classes: Callable[[], int] | None = None
) -> ImageSource:
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    fingerprint = digest(spec, split, *seen)
    firsts, rows = [], 0
    for file in files:
        firsts.append((rows, str(file)))
        rows += _parquet(file).metadata.num_rows
    if not rows:
        raise UserError(f"--data {spec}: split {split} has no rows")
    if sum(size for _, size, _ in seen) <= IN_MEMORY_BYTES:
        table = pa.concat_tables([_read(file) for file in files], promote_options="permissive")
    else:
        table = _mapped(files, fingerprint)
    return ArrowImages(spec, split, table, firsts, fingerprint, count_classes)


def _parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as problem:
        raise UserError(f"{file}: not a parquet file ({problem})") from problem


def _read(file: Path) -> pa.Table:
    parquet = _parquet(file)
    try:
        return parquet.read(columns=_wanted(parquet.schema_arrow, str(file)))
    except (pa.ArrowException, OSError) as problem:
        raise UserError(f"{file}: damaged ({problem})") from problem


def _mapped(files: list[Path], fingerprint: str) -> pa.Table:
    """The table memory-mapped from an uncompressed copy, since single rows of parquet cannot be read."""
    copy = cache_folder() / "data" / f"{fingerprint}.arrow"
    if not copy.is_file():
        schema = _parquet(files[0]).schema_arrow
        wanted = _wanted(schema, str(files[0]))
        schema = pa.schema([schema.field(name) for name in wanted], metadata=schema.metadata)
        with replacing(copy) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
            for file in files:
                for batch in _parquet(file).iter_batches(1024, columns=wanted):
                    writer.write_table(pa.Table.from_batches([batch]).cast(schema))
    return pa.ipc.open_file(pa.memory_map(str(copy))).read_all()


def features(schema: pa.Schema) -> dict[str, Feature]:
    """The Hugging Face feature types in the schema; {} where it has none."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    return json.loads(text).get("info", {}).get("features", {})


def _wanted(schema: pa.Schema, file: str) -> list[str]:
    return [name for name in columns(schema, file) if name]


def columns(schema: pa.Schema, file: str) -> tuple[str, str | None, str | None]:
    """The columns of images, of labels, and of lists of labels where there are no single ones.

    ``image``, ``label`` and ``labels``, else the first that hold such things.
    """
    known = features(schema)
    images = [name for name in schema.names if _holds_images(schema.field(name).type, known.get(name))]
    if not images:
        raise UserError(f"{file}: no column image with {{bytes, path}}; the columns are {schema.names}")
    single = {name: feature for name, feature in known.items() if isinstance(feature, Mapping)}  # a list: of lists
    labels = [name for name, feature in single.items() if feature.get("_type") == "ClassLabel"]
    lists = [name for name in ("labels", "label") if name in schema.names and is_list(schema.field(name).type)]
    label = "label" if "label" in schema.names and "label" not in lists else next(iter(labels), None)
    image = "image" if "image" in images else images[0]
    return image, label, lists[0] if lists and label is None else None


def _holds_images(column: pa.DataType, feature: Feature | None) -> bool:
    if pa.types.is_struct(column):
        return "bytes" in [column.field(position).name for position in range(column.num_fields)]
    return _is_binary(column) and (feature or {"_type": "Image"}).get("_type") == "Image"


def _is_binary(column: pa.DataType) -> bool:
    return pa.types.is_binary(column) or pa.types.is_large_binary(column)


def encoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The bytes of images (N,), of a column of bytes or of ``struct<bytes, path>``."""
    if _is_binary(column.type):
        return column
    return pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])


def paths(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Where the files of images lie; None where a column does not say."""
    if _is_binary(column.type) or column.type.get_field_index("path") < 0:
        return None
    return pa.chunked_array([chunk.field("path") for chunk in column.chunks])
