"""Several processes of one run: how they meet, when they stop together, and when one is lost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from sweet.errors import UserError

MEETING = "sweet-run://"  # how these processes find each other, a URL for torch.distributed
POLL = 0.05  # seconds


class PeerLost(UserError):
    """Another process of this run has ended, or has not come, and the run ends with it."""

    code = 1


def meet(store: dist.Store, rank: int, world: int) -> dist.Store:
    """The part of a store that only the living processes of a run know; returns once all have come.

    torchrun keeps one store over its restarts: what the processes of before wrote there, addresses above all, stands in
    it still. So the first process draws a name; it lets in those who answer to that name, one by one.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set("name", own)
        for other in range(1, world):
            store.set(f"{own}/{other}/{_awaited(store, f'{own}/{other}')}", "come")
        return dist.PrefixStore(own, store)
    name = ""
    while not name or not store.check([f"{name}/{rank}/{own}"]):
        if (now := _awaited(store, "name")) != name:  # the first one of the run of before may have drawn it
            name = now
            store.set(f"{name}/{rank}", own)
        time.sleep(POLL)
    return dist.PrefixStore(name, store)


def _awaited(store: dist.Store, key: str) -> str:
    """A value that somebody will write. Signals are obeyed meanwhile, unlike inside ``Store.get``."""
    while not store.check([key]):
        time.sleep(POLL)
    return bytes(store.get(key)).decode()


def _meeting(url: str, **options: Any) -> Iterator[tuple[dist.Store, int, int]]:
    for store, rank, world in rendezvous(f"env://?{urlsplit(url).query}", **options):
        yield meet(dist.PrefixStore("sweet", store), rank, world), rank, world


register_rendezvous_handler(MEETING.removesuffix("://"), _meeting)


class StopVote:
    """Whether any process has received a signal: all of them must end after the same step.

    The votes go from CPU to CPU, so that no GPU is waited for.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.alone = accelerator.num_processes == 1
        own = not self.alone and dist.get_backend() != "gloo"
        self.group: Any = dist.new_group(backend="gloo") if own else None

    def any(self, wanted: bool) -> bool:
        """Whether it is wanted in any process; every process has to ask."""
        if self.alone:
            return wanted
        votes = torch.tensor(int(wanted))
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.group)
        return bool(votes)


def lost_peer(problem: BaseException, world: int) -> bool:
    """Whether an error in one of ``world`` processes means that another one is gone."""
    words = ("gloo", "Connection", "connection", "NCCL", "ncclRemoteError", "recv", "peer")
    return (
        world > 1 and isinstance(problem, RuntimeError | dist.DistError) and any(word in str(problem) for word in words)
    )
