"""Batches of images whose targets change with them (boxes, masks): made one sample at a time, in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .augment import onto
from .batches import ahead
from .epoch_order import EpochOrder, step_generator
from .skips import Skips, load_or_next

Collate = Callable[[list[Any]], tuple[Any, Any]]


@dataclass(eq=False)
class Samples:
    """Shuffled training batches (inputs, targets), a pure function of (seed, step, rank) like :class:`Batches`.

    ``load(index, generator)`` makes one augmented sample on the CPU, drawing only from its generator; ``collate`` joins
    a list of them. Both run in worker processes. ``batch_size``, ``rank`` and ``world`` as of :class:`EpochOrder`,
    ``skips`` as of :class:`.batches.Batches`.
    """

    count: int
    load: Callable[[int, torch.Generator], Any]
    collate: Collate
    _: KW_ONLY
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    device: torch.device | str = "cpu"
    workers: int = 0
    skips: Skips | None = None

    def __post_init__(self) -> None:
        self.order = EpochOrder(
            self.count, batch_size=self.batch_size, seed=self.seed, rank=self.rank, world=self.world
        )
        self.steps_per_epoch, self.whole = self.order.steps_per_epoch, self.order.whole

    def at(self, step: int) -> tuple[Any, Any]:
        """The batch of one step, on the device."""
        inputs, targets = self._make(step)
        return to_device(inputs, self.device), to_device(targets, self.device)

    def iterate(self, start: int, stop: int) -> Iterator[tuple[Any, Any]]:
        """The batches ``at(start) .. at(stop - 1)``, made ahead by the workers."""
        for inputs, targets in ahead(self._make, range(start, stop), self.workers):
            yield to_device(inputs, self.device), to_device(targets, self.device)

    def _make(self, step: int) -> tuple[Any, Any]:
        return self.collate(
            [
                load_or_next(partial(self._load, step, place), index, self.count, self.skips)[0]
                for place, index in enumerate(self.order.indices(step).tolist(), self.rank * self.batch_size)
            ]
        )

    def _load(self, step: int, place: int, index: int) -> Any:
        return self.load(index, step_generator(self.seed, step, 0, f"augment {place}"))


def in_order(
    count: int,
    load: Callable[[int], Any],
    collate: Collate,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[tuple[Any, Any]]:
    """Every sample once, in order; the last batch may be smaller. ``load`` is pickled where workers are spawned."""
    make = partial(_batch, count, load, collate, batch_size)
    for inputs, targets in ahead(make, range(0, count, batch_size), workers):
        yield to_device(inputs, device), to_device(targets, device)


def _batch(count: int, load: Callable[[int], Any], collate: Collate, size: int, start: int) -> tuple[Any, Any]:
    return collate([load(index) for index in range(start, min(start + size, count))])


def to_device(value: Any, device: torch.device | str) -> Any:
    """Tensors inside lists, tuples and dicts, moved."""
    if isinstance(value, Tensor):
        return onto(value, device)
    if isinstance(value, dict):
        return {key: to_device(inner, device) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_device(inner, device) for inner in value)
    return value
