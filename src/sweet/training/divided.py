"""Weights, gradients and moments divided among the processes of a run (FSDP), for models that one device cannot hold.

``accelerate launch --use_fsdp`` wants it. accelerate itself divides on GPUs only, so this is torch's ``fully_shard``,
the same on CPUs and GPUs.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sweet.errors import UserError
from sweet.recipes.schema import OptimKeys

SWITCH = "ACCELERATE_USE_FSDP"
BLOCK = re.compile(r"(^|\.)blocks\.\d+$")  # modules that are put together one after the other, not all at once


def wanted() -> bool:
    """Whether the launcher wants it."""
    return os.environ.get(SWITCH, "false").lower() in ("1", "true")


def check(optim: OptimKeys, world: int, ema: float | None = None) -> None:
    """Raises UserError for what a model that ``world`` processes divide cannot have."""
    if wanted() and world > 1:
        name, precision = f"optim.name={optim.name}", f"optim.precision={optim.precision}"
        wrong = {name: optim.name != "adamw", precision: optim.precision == "fp16", f"ema={ema}": ema is not None}
        for key in (key for key, given in wrong.items() if given):
            raise UserError(f"{key}: not with accelerate launch --use_fsdp; leave it out")


@contextmanager
def left_to_us() -> Iterator[None]:
    """Inside, accelerate does not see that it is wanted."""
    before = os.environ.pop(SWITCH, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[SWITCH] = before


def in_parts(model: nn.Module, device: torch.device) -> tuple[nn.Module, dict[nn.Parameter, nn.Parameter]]:
    """A copy of ``model`` of which every process holds a part, and its parameter for each of the model's; collective.

    The model itself goes to the CPU.
    """
    parts, mesh = copy.deepcopy(model.cpu()), init_device_mesh(device.type, (dist.get_world_size(),))
    for name, module in parts.named_modules():
        if BLOCK.search(name) and any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)
    fully_shard(parts, mesh=mesh)
    now = dict(parts.named_parameters())
    return parts, {parameter: now[name] for name, parameter in model.named_parameters()}


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with divided tensors put together on the CPU: collective where there are any."""
    return {name: value.full_tensor().cpu() if isinstance(value, DTensor) else value for name, value in tensors.items()}


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, divided as ``like`` is; the tensor itself where that is not."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
