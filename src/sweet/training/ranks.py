"""Several processes of one run: when they stop together, and when one is lost."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator

from sweet.errors import UserError


class PeerLost(UserError):
    """Another process of this run has ended, and the run with it."""

    code = 1


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


def lost_peer(problem: BaseException, accelerator: Accelerator) -> bool:
    """Whether an error means that another process is gone."""
    words = ("gloo", "Connection", "connection", "NCCL", "ncclRemoteError", "recv", "peer")
    return (
        accelerator.num_processes > 1
        and isinstance(problem, RuntimeError | dist.DistError)
        and any(word in str(problem) for word in words)
    )
