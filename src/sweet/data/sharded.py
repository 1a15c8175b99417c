"""What sets in shards have in common, be they tar files on a disk or parts of parquet files on the hub."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import accumulate

from .bands import Stored
from .decode import open_stored
from .images import ImageSource

LOOKED_AT = 16  # shards, and images of each, that stand for all


class ShardedImages(ImageSource):
    """Images of shards called ``shards``, of which each holds as many as ``shard_counts`` says.

    Labels are read from all shards when they are used, by :meth:`read_labels`.
    """

    shard_counts: list[int]
    looked_at = LOOKED_AT

    def __init__(self, spec: str, split: str, shards: Sequence[str], counts: Sequence[int]) -> None:
        self._take(shards, counts)
        self._read = False
        super().__init__(spec, split, self.count, None, None)

    @abstractmethod
    def read_labels(self) -> tuple[list[int] | None, list[str] | None]:
        """Labels and the names of the classes. Raises UserError naming the image whose label is missing or wrong."""

    @property
    def labels(self) -> list[int] | None:
        """None where the images have no class."""
        self._ready()
        return self._labels

    @labels.setter
    def labels(self, labels: list[int] | None) -> None:
        self._labels = labels

    @property
    def classes(self) -> list[str] | None:
        """By name where there are names, else the numbers."""
        self._ready()
        return self._classes

    @classes.setter
    def classes(self, classes: list[str] | None) -> None:
        self._classes = classes

    def _ready(self) -> None:
        if not self._read:
            self._labels, self._classes = self.read_labels()
            self._read = True

    @property
    def is_labelled(self) -> bool:
        return not self._read or self._labels is not None

    def of_shards(self, numbers: Sequence[int]) -> ShardedImages:
        """The images of some shards, in the order of ``numbers``."""
        some = copy(self)
        some._take([self.shards[number] for number in numbers], [self.shard_counts[number] for number in numbers])
        some._read = not self.is_labelled  # labels that were read are those of all shards
        return some

    def _take(self, shards: Sequence[str], counts: Sequence[int]) -> None:
        self.shards, self.shard_counts = list(shards), list(counts)
        self._ends = list(accumulate(self.shard_counts))
        self.count = self._ends[-1]

    def pixels_only(self) -> ImageSource:
        plain = copy(self)
        plain._read, plain._labels, plain._classes = True, None, None
        return plain

    def open(self, index: int) -> Stored:
        return open_stored(self.stored(index))

    @abstractmethod
    def stored(self, index: int) -> bytes:
        """The encoded image."""

    def places(self) -> Iterator[str]:
        for shard, count in zip(self.shards, self.shard_counts, strict=True):
            yield f"{shard} {count}"

    def spread(self, count: int) -> list[int]:
        """Images of few shards: each other one would have to be read."""
        shards = range(0, len(self.shards), max(1, len(self.shards) // self.looked_at))
        share = -(-count // len(shards))
        counts = self.shard_counts
        return [self._ends[shard] - k for shard in shards for k in range(min(share, counts[shard]), 0, -1)]

    def place(self, index: int) -> tuple[int, int]:
        """The shard of an image, and its number in that."""
        if index < 0:
            index += len(self)
        shard = bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self.shard_counts[shard]
