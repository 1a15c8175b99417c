"""Sets of the Hugging Face hub that are never whole on this machine: ``stream:NAME``.

The hub keeps images in parquet files, whose groups of rows are fetched when a step asks for one of their images and
kept in the cache folder while there is room (:data:`KEPT_BYTES`). A group is a shard, so the order of a run is that of
:class:`.epoch_order.ShardOrder`: drawn by seed and step, on any number of processes and workers, resumed at the exact
image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from sweet.console import progress
from sweet.errors import UserError
from sweet.files import cache_folder, read_json, replacing, write_json

from .arrow import checked_names, columns, encoded, features, hub_errors, read_labels
from .images import digest
from .sharded import ShardedImages
from .splits import Splits

KEPT_BYTES = 16 << 30  # of fetched groups on the disk; the oldest make room
TRIES, WAIT = 4, 2.0  # to read from the network; seconds before the second try, then twice as many
LOCKS = 64  # files by which processes do not fetch one group twice
GROUP = " group "  # between the address and the number, in the name of a shard
T = TypeVar("T")


class StreamedImages(ShardedImages):
    """Images in row groups of parquet files at any address that fsspec opens."""

    looked_at, mixing = 1, {"lanes": 8, "window": 256}  # a shard is a download

    def __init__(self, spec: str, split: str, urls: list[str]) -> None:
        rows = group_sizes(spec, urls)
        groups = [f"{url}{GROUP}{number}" for url in urls for number in range(len(rows[url]))]
        counts = [count for url in urls for count in rows[url]]
        if not sum(counts):
            raise UserError(f"--data {spec}: split {split} has no rows")
        super().__init__(spec, split, groups, counts)
        self._rows, self._schema = rows, reading(urls[0], lambda parquet: parquet.schema_arrow)
        self._image, self._label, _ = columns(self._schema, urls[0])
        self._read = self._label is None
        self._labels = self._classes = None

    def stored(self, index: int) -> bytes:
        shard, row = self.place(index)
        data: bytes | None = row_group(*group_at(self.shards[shard]), self._image)[row].as_py()
        if data is None:
            raise UserError(f"{self.where(index)}: the image has no bytes")
        return data

    def where(self, index: int) -> str:
        shard, row = self.place(index)
        return f"{self.shards[shard]} row {row}"

    def fingerprint(self) -> str:
        urls = dict.fromkeys(url for url, _ in map(group_at, self.shards))
        return digest(*map(stamp, urls), *self.shards)

    def read_labels(self) -> tuple[list[int] | None, list[str] | None]:
        """From the column of labels alone, a small part of each file."""
        name = self._label
        if name is None:
            return None, None
        wanted: dict[str, list[int]] = {}
        for url, number in map(group_at, self.shards):
            wanted.setdefault(url, []).append(number)
        parts: list[pa.Array] = []
        for url in progress(wanted, len(wanted), 1, "reading labels over the network"):
            column = reading(url, lambda parquet: parquet.read(columns=[name])[name])
            ends = list(accumulate(self._rows[url]))
            for number in wanted[url]:
                size = self._rows[url][number]
                parts += column.slice(ends[number] - size, size).chunks
        labels = read_labels(pa.chunked_array(parts), name, self.where)
        if labels is None:
            return None, None
        names = features(self._schema).get(name, {}).get("names")
        classes = names or [str(number) for number in range(max(labels) + 1)]
        return labels, checked_names(classes, labels, self.where)


def streamed_splits(spec: str, name: str) -> Splits:
    """{split: opens it} of a set of the hub, ``NAME`` or ``NAME:CONFIG``, whose files are parquet.

    Raises UserError where the hub cannot be reached or knows no such set, and for other files.
    """
    import datasets

    repo, _, config = name.partition(":")
    with hub_errors(spec):
        files: Mapping[str, list[str]] = datasets.load_dataset_builder(repo, config or None).config.data_files or {}
    others = [url for urls in files.values() for url in urls if not url.endswith(".parquet")]
    if others or not files:
        raise UserError(
            f"--data {spec}: only parquet files are streamed, not {(others or ['none'])[0]}; use hub:{name}"
        )
    return {str(split): partial(StreamedImages, spec, str(split), list(urls)) for split, urls in files.items()}


def group_at(shard: str) -> tuple[str, int]:
    """The address of a file and which of its groups a shard is."""
    url, _, number = shard.rpartition(GROUP)
    return url, int(number)


def group_sizes(spec: str, urls: list[str]) -> dict[str, list[int]]:
    """{address: rows of each of its groups}, from the ends of the files; remembered in the cache folder."""
    kept = cache_folder() / "data" / "streams" / f"{digest(*map(stamp, urls))}.json"
    with suppress(UserError):
        known: dict[str, list[int]] = read_json(kept)
        return known

    def sizes(parquet: pq.ParquetFile) -> list[int]:
        return [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]

    listed = progress(urls, len(urls), 1, f"looking at the files of {spec} (once)")
    rows = {url: reading(url, sizes) for url in listed}
    with suppress(OSError):
        write_json(kept, rows)
    return rows


def stamp(url: str) -> str:
    """An address of the hub names a commit, so it says what it holds; of another file its size and time do."""
    if url.startswith("hf://"):
        return url
    info = _filesystem(url)[0].info(url)
    return f"{url} {info['size']} {info.get('mtime')}"


@lru_cache(maxsize=128)
def row_group(url: str, number: int, column: str) -> pa.ChunkedArray:
    """The encoded images of a group, mapped from the cache folder, fetched once for all processes."""
    name = digest(stamp(url), number, column)
    kept = cache_folder() / "data" / "streams" / f"{name}.arrow"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(kept.parent / f"{int(name, 16) % LOCKS}.lock"):
        if not kept.is_file():
            table = pa.table({column: reading(url, lambda p: encoded(p.read_row_group(number, [column])[column]))})
            with replacing(kept) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
                writer.write_table(table)
            make_room()
        return pa.ipc.open_file(pa.memory_map(str(kept))).read_all()[column]


def make_room() -> None:
    """Remove the oldest groups beyond :data:`KEPT_BYTES`; a process that reads one keeps it until it is done."""
    found = []
    for file in (cache_folder() / "data" / "streams").glob("*.arrow"):
        with suppress(OSError):  # another process makes room too
            stat = file.stat()
            found.append((stat.st_mtime, stat.st_size, file))
    held = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if held <= KEPT_BYTES:
            return
        with suppress(OSError):  # gone already; Windows keeps what is mapped
            file.unlink()
            held -= size


def reading(url: str, read: Callable[[pq.ParquetFile], T]) -> T:
    """What ``read`` takes from a parquet file; the network gets :data:`TRIES`. Raises UserError naming the address."""
    filesystem, path = _filesystem(url)
    for number in range(TRIES):
        try:
            with filesystem.open(path) as file:
                return read(pq.ParquetFile(file, pre_buffer=True))
        except pa.ArrowInvalid as problem:
            raise UserError(f"{url}: not a readable parquet file ({problem})") from None
        except Exception as problem:  # each file system has its own types
            if number == TRIES - 1 or isinstance(problem, FileNotFoundError):
                raise UserError(f"{url}: cannot be read ({type(problem).__name__}: {problem})") from None
            time.sleep(WAIT * 2**number)
    raise AssertionError("unreachable")


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    found: tuple[Any, str] = url_to_fs(url)
    return found
