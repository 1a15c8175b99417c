"""Which device a name means, and what of torch's global state must neither reach our tensors nor be changed by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from sweet.errors import UserError


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first of cuda, mps, cpu. Raises UserError for a device that this machine lacks."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in present:
        raise UserError(f"device={name}: unknown, expected auto, cpu, cuda, cuda:N or mps")
    if not present[device.type]:
        raise UserError(f"device={name}: this machine has no {device.type} device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: this machine has {torch.cuda.device_count()} cuda devices")
    return device


@contextmanager
def plain_tensors() -> Iterator[None]:
    """New tensors are float32 on the CPU in this block, and may be trained: as if the caller had set no default type,
    no default device (``with torch.device("cuda"):``), no inference mode and no ``torch.no_grad``.

    What we draw comes from a CPU generator, and tensors that are kept between calls have to serve all of them.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield


@contextmanager
def own_draws(seed: int | None = None) -> Iterator[None]:
    """The global generators are afterwards as they were; the CPU's begins at ``seed`` in this block.

    ``torch.manual_seed`` would also seed those of all GPUs.
    """
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        if seed is not None:
            torch.random.default_generator.manual_seed(seed)
        yield
