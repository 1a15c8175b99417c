"""Which images a step takes: pure functions of (seed, step, rank), so that a resumed run sees what it would have."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LANES, WINDOW = 16, 1024  # of a set in shards: places read side by side, and images that are mixed at each of them


def step_generator(seed: int, step: int, rank: int, stream: str) -> torch.Generator:
    """A CPU generator for one purpose (``stream``) in one step of one process; the same on every machine."""
    key = hashlib.blake2b(f"{seed}/{step}/{rank}/{stream}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


class EpochOrder:
    """Which images a step takes: every one once in an epoch, in an order drawn by (seed, epoch).

    ``draw`` makes another order of ``count`` images from the generator of an epoch.

    ``batch_size`` counts the images of one process; a step of ``world`` processes takes ``world`` times as many, and
    ``rank`` its share of them. The last partial batch is dropped; a set smaller than one batch repeats itself.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        draw: Callable[[torch.Generator], Tensor] | None = None,
    ) -> None:
        self.draw = draw
        self.count, self.batch_size, self.seed, self.rank, self.world = count, batch_size, seed, rank, world
        self.steps_per_epoch = max(1, count // (batch_size * world))
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Tensor:
        """(b,) int64."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = step_generator(self.seed, epoch, 0, "order")
            order = self.draw(generator) if self.draw else torch.randperm(self.count, generator=generator)
            self._epoch, self._order = epoch, order.repeat(-(-self.batch_size * self.world // len(order)))
        first = (position * self.world + self.rank) * self.batch_size
        return self._order[first : first + self.batch_size]

    def whole(self, step: int) -> Tensor:
        """(b x world,) int64: what all processes take in a step."""
        size = self.batch_size * self.world
        return EpochOrder(self.count, batch_size=size, seed=self.seed, draw=self.draw).indices(step)


class ShardOrder:
    """As :class:`EpochOrder`, for images that lie in shards and are best read shard by shard.

    An epoch shuffles the shards and cuts their images, as they lie one after the other, into as many equal lanes as
    divide the batch of all processes (at most ``lanes``). A step takes as many images of each lane, so processes
    read different shards, and how many processes there are changes no batch. Within a lane, windows of ``window``
    images are shuffled. What is kept in memory grows with the number of shards (``counts``: images of each), not with
    that of images.
    """

    def __init__(
        self,
        counts: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        lanes: int = LANES,
        window: int = WINDOW,
    ) -> None:
        self.window, self.batch_size, self.seed, self.rank, self.world = window, batch_size, seed, rank, world
        self.counts = torch.tensor(counts, dtype=torch.int64)
        self._first = self.counts.cumsum(0) - self.counts
        count, batch = int(self.counts.sum()), batch_size * world
        self.lanes = math.gcd(batch, lanes) if count >= max(batch, lanes) else 1
        self.lane_images, self.lane_batch = count // self.lanes, batch // self.lanes
        self.steps_per_epoch = max(1, count // batch)
        self._epoch, self._shards, self._ends = -1, self.counts, self.counts
        self._windows: dict[tuple[int, int, int], Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """(b,) int64."""
        first = self.rank * self.batch_size
        return self._places(step, first, first + self.batch_size)

    def whole(self, step: int) -> Tensor:
        """(b x world,) int64: what all processes take in a step."""
        return self._places(step, 0, self.batch_size * self.world)

    def _places(self, step: int, first: int, stop: int) -> Tensor:
        """The images at the places ``first`` .. ``stop - 1`` of the batch of all processes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        self._begin(epoch)
        places = torch.arange(first, stop)
        lane = places // self.lane_batch
        inside = (position * self.lane_batch + places % self.lane_batch) % self.lane_images
        window = inside // self.window
        spots = torch.empty_like(places)
        for number, which in torch.unique(torch.stack([lane, window]), dim=1).T.tolist():
            mine = (lane == number) & (window == which)
            start = which * self.window
            spots[mine] = number * self.lane_images + start + self._window(number, which)[inside[mine] - start]
        shard = torch.searchsorted(self._ends, spots, right=True)
        shards = self._shards[shard]
        return self._first[shards] + spots - (self._ends[shard] - self.counts[shards])

    def _begin(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._shards = torch.randperm(len(self.counts), generator=step_generator(self.seed, epoch, 0, "shards"))
            self._epoch, self._ends, self._windows = epoch, self.counts[self._shards].cumsum(0), {}

    def _window(self, lane: int, number: int) -> Tensor:
        key = (self._epoch, lane, number)
        if key not in self._windows:
            self._windows = {k: order for k, order in self._windows.items() if k[1] != lane or k[2] == number - 1}
            generator = step_generator(self.seed, self._epoch, lane, f"window {number}")
            size = min(self.window, self.lane_images - number * self.window)
            self._windows[key] = torch.randperm(size, generator=generator)
        return self._windows[key]
