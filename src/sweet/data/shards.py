"""Tar shards in the layout of webdataset, ``wds:PATTERN``: sets past one disk, read from their place in the shard.

The files of a sample lie one after the other and share their name up to the first dot: an image, and its class as a
number in ``.cls``. A shard is listed once, on first use, and the list is kept in the cache folder: then every image is
read from its place, so that the order of a run, and where it goes on, do not depend on who reads ahead. How many
images there are is said by ``_info.json``, as timm writes it, or ``sizes.json`` beside the shards; else all are listed.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from glob import glob
from itertools import chain, product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sweet.console import progress
from sweet.errors import UserError
from sweet.files import cache_folder, read_json, read_tensors, write_tensors

from .class_names import class_names_beside
from .folder import SUFFIXES
from .images import digest, stamps
from .sharded import ShardedImages
from .splits import Splits, split_called

KEPT = 256  # lists of shards in the memory of a process
SPLIT = re.compile(r"(?:.*[-_.])?(?P<split>[a-zA-Z]+)[-_.]?\d*\.tar")  # imagenet-train-0001.tar
ALTERNATIVES = re.compile(r"\{([^{}]+)\}")  # of a pattern: {0000..0146} or {a,b}
BLOCK = 512  # bytes of a tar file


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds, in its order: where each image begins, its bytes, its class (-1: none), and its name."""

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int64]
    names: list[str]


class ShardImages(ShardedImages):
    """Images in tar files."""

    def __init__(self, spec: str, split: str, files: list[str]) -> None:
        super().__init__(spec, split, files, shard_counts(spec, files))
        self._read = not len(self) or bool((self.index_of(0).label < 0).all())

    def stored(self, index: int) -> bytes:
        shard, row = self.place(index)
        found = self.index_of(shard)
        with open(self.shards[shard], "rb") as file:
            file.seek(int(found.start[row]))
            return file.read(int(found.size[row]))

    def where(self, index: int) -> str:
        shard, row = self.place(index)
        return f"{self.shards[shard]} {self.index_of(shard).names[row]}"

    def fingerprint(self) -> str:
        return digest(*stamps(self.shards))

    def index_of(self, shard: int) -> ShardIndex:
        """The list of a shard. Raises UserError naming it where it is damaged or not what ``_info.json`` says."""
        found = list_shard(*next(stamps([self.shards[shard]])))
        if len(found.names) != self.shard_counts[shard]:
            raise UserError(
                f"{self.shards[shard]}: holds {len(found.names)} images, expected {self.shard_counts[shard]}"
            )
        return found

    def read_labels(self) -> tuple[list[int], list[str]]:
        """From ``.cls``; names from ``classes.txt`` beside the shards, else the numbers."""
        shards = progress(range(len(self.shards)), len(self.shards), 1, "reading labels of shards")
        labels = np.concatenate([self.index_of(shard).label for shard in shards])
        missing = np.flatnonzero(labels < 0)
        if len(missing):
            raise UserError(f"{self.where(int(missing[0]))}: has no class (.cls), other images have")
        names = class_names_beside(Path(self.shards[0]))
        if names is not None and len(names) <= labels.max():
            worst = int(labels.argmax())
            raise UserError(f"{self.where(worst)}: class {labels[worst]}, but there are {len(names)} class names")
        return labels.tolist(), names or [str(number) for number in range(int(labels.max()) + 1)]


def shards_splits(spec: str, pattern: str) -> Splits:
    """{split: opens it} of a folder of tar files by their names, or of a pattern (one split, train).

    A pattern has ranges ``{0000..0146}``, alternatives ``{a,b}``, ``*`` and ``?``.
    Raises UserError for what is missing, and for an address of a network.
    """
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UserError(
            f"--data {spec}: shards are read from a disk; mount their place; sets of the hub are read by stream:NAME"
        )
    path = Path(pattern).expanduser()
    if not path.is_dir():
        return {"train": partial(ShardImages, spec, "train", expand(spec, str(path)))}
    groups: dict[str, list[str]] = {}
    for file in sorted(path.glob("*.tar")):
        match = SPLIT.fullmatch(file.name)
        split = match["split"] if match and split_called(match["split"]) else "train"
        groups.setdefault(split, []).append(str(file))
    if not groups:
        raise UserError(f"--data {spec}: no .tar files in it")
    return {split: partial(ShardImages, spec, split, files) for split, files in groups.items()}


def expand(spec: str, pattern: str) -> list[str]:
    """The files of a pattern, in its order. Raises UserError naming the first that is missing."""
    pieces = ALTERNATIVES.split(pattern)
    choices = [_alternatives(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    names = ["".join(choice) for choice in product(*choices)]
    files = list(chain.from_iterable(sorted(glob(name)) if set(name) & set("*?[") else [name] for name in names))
    missing = next((file for file in files if not os.path.isfile(file)), None)
    if missing is not None or not files:
        raise UserError(f"--data {spec}: no such shard {missing or pattern}")
    return files


def _alternatives(text: str) -> list[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if numbers is None:
        return text.split(",")
    first, last = numbers.groups()
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def shard_counts(spec: str, files: Sequence[str]) -> list[int]:
    """Images of each shard: as a file beside them says, else by listing all."""
    known: dict[str, int] = {}
    for folder in dict.fromkeys(Path(file).parent for file in files):
        known |= _stated_counts(folder)
    if all(Path(file).name in known for file in files):
        return [known[Path(file).name] for file in files]
    listed = progress(stamps(files), len(files), 1, "listing shards (once)")
    counts = [len(list_shard(*stamp).names) for stamp in listed]
    if not sum(counts):
        raise UserError(f"--data {spec}: no image in {len(files)} shards")
    return counts


def _stated_counts(folder: Path) -> dict[str, int]:
    """{shard: images} of ``_info.json`` or ``sizes.json`` in a folder; empty where there is neither."""
    for name in ("_info.json", "info.json"):
        if (folder / name).is_file():
            try:
                splits = read_json(folder / name)["splits"].values()
                return {
                    Path(file).name: int(count)
                    for split in splits
                    for file, count in zip(split["filenames"], split["shard_lengths"], strict=True)
                }
            except (KeyError, TypeError, AttributeError, ValueError) as problem:
                raise UserError(f"{folder / name}: not a list of shards as timm writes it ({problem!r})") from None
    if not (folder / "sizes.json").is_file():
        return {}
    try:
        return {str(name): int(count) for name, count in read_json(folder / "sizes.json").items()}
    except (TypeError, AttributeError, ValueError):
        raise UserError(f"{folder / 'sizes.json'}: expected {{shard: number of images}}") from None


@lru_cache(maxsize=KEPT)
def list_shard(file: str, size: int, changed: int) -> ShardIndex:
    """What a shard of so many bytes, changed at that time, holds: from the cache folder, else by reading its headers.

    Raises UserError naming a shard that is damaged or missing.
    """
    kept = cache_folder() / "data" / "shards" / f"{digest(file, size, changed)}.safetensors"
    with suppress(UserError):
        found = read_tensors(kept)
        text = bytes(found["names"].numpy()).decode("utf-8", "surrogateescape")
        names = text.split("\n") if text else []  # splitlines() would also cut at U+0085 and U+2028
        return ShardIndex(found["start"].numpy(), found["size"].numpy(), found["label"].numpy(), names)
    index = _list(file)
    joined = bytearray("\n".join(index.names), "utf-8", "surrogateescape")
    tensors = {"start": index.start, "size": index.size, "label": index.label, "names": np.frombuffer(joined, np.uint8)}
    with suppress(OSError):  # a cache that cannot be written costs time, not the run
        write_tensors(kept, {name: torch.from_numpy(value) for name, value in tensors.items()})
    return index


def _list(file: str) -> ShardIndex:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                name, _, kind = name.partition(".")
                sample = f"{folder}/{name}".lstrip("/")
                if f".{kind.lower()}".endswith(SUFFIXES):
                    if sample in images:
                        raise UserError(
                            f"{file}: {member.name}: a second image of {sample}, beside {images[sample].name}"
                        )
                    images[sample] = member
                elif kind.lower() == "cls":
                    opened = archive.extractfile(member)
                    labels[sample] = int(opened.read()) if opened else -1
            end = archive.offset
        with open(file, "rb") as plain:  # tarfile takes a cut header for the end
            plain.seek(end)
            if plain.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError("it ends too soon")
    except (tarfile.TarError, OSError, ValueError) as problem:
        raise UserError(f"{file}: not a readable tar shard ({problem})") from None
    return ShardIndex(
        start=np.array([member.offset_data for member in images.values()], np.int64),
        size=np.array([member.size for member in images.values()], np.int64),
        label=np.array([labels.get(key, -1) for key in images], np.int64),
        names=[member.name for member in images.values()],
    )
