"""Weights, gradients and moments divided among the processes of a run (FSDP), for models that one device cannot hold.

``accelerate launch --use_fsdp`` wants it. accelerate itself divides on GPUs only, so this is torch's ``fully_shard``,
the same on CPUs and GPUs.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

SWITCH = "ACCELERATE_USE_FSDP"
BLOCK = re.compile(r"(^|\.)blocks\.\d+$")  # modules that are put together one after the other, not all at once


class ParameterGroup(TypedDict, total=False):
    """A parameter group of AdamW; its learning rate is the schedule's times ``lr_scale`` (1 by default)."""

    params: Sequence[nn.Parameter]
    weight_decay: float
    lr_scale: float


def wanted() -> bool:
    """Whether the launcher wants it."""
    return os.environ.get(SWITCH, "false").lower() in ("1", "true")


@contextmanager
def left_to_us() -> Iterator[None]:
    """Inside, accelerate does not see that it is wanted."""
    before = os.environ.pop(SWITCH, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[SWITCH] = before


def sharded(
    model: nn.Module, groups: Sequence[ParameterGroup], device: torch.device
) -> tuple[nn.Module, list[ParameterGroup]]:
    """A copy of ``model`` of which every process holds a part, and the groups of its parameters; collective."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parts, mesh = copy.deepcopy(model), init_device_mesh(device.type, (dist.get_world_size(),))
    for name, module in parts.named_modules():
        if BLOCK.search(name) and any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)
    fully_shard(parts, mesh=mesh)
    now = dict(parts.named_parameters())
    moved: list[ParameterGroup] = [{**group, "params": [now[names[p]] for p in group["params"]]} for group in groups]
    return parts, moved


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with divided tensors put together on the CPU: collective where there are any."""
    return {name: value.full_tensor().cpu() if isinstance(value, DTensor) else value for name, value in tensors.items()}


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, divided as ``like`` is; the tensor itself where that is not."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
