"""What the machine can do, and how to make it do it: device, precision, accelerator, allocator."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import InitProcessGroupKwargs
from torch import nn

from sweet.errors import UserError
from sweet.models.device import resolve_device

from . import divided
from .ranks import MEETING, PeerLost, lost_peer


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether bf16 products are native here; emulated ones are slower than float32."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.is_file() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def resolve_precision(name: str, device: torch.device) -> str:
    """``auto`` is bf16 where the device has it, float32 elsewhere. Returns accelerate's word for it."""
    if name == "auto":
        native = cpu_has_bf16() if device.type == "cpu" else device.type == "cuda" and torch.cuda.is_bf16_supported()
        name = "bf16" if native else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UserError("optim.precision=fp16: needs a GPU; use bf16 or fp32 on a CPU")
    return "no" if name == "fp32" else name


def make_accelerator(device: str, precision: str, accumulate: int) -> Accelerator:
    """An accelerator for one run; the process may make several, one after the other."""
    chosen = resolve_device(device)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if chosen.type == "cpu":
        keep_memory()
    try:
        with divided.left_to_us():
            return Accelerator(
                cpu=chosen.type == "cpu",
                mixed_precision=resolve_precision(precision, chosen),
                gradient_accumulation_steps=accumulate,
                kwargs_handlers=[InitProcessGroupKwargs(init_method=MEETING)],
            )
    except RuntimeError as problem:
        if not lost_peer(problem, int(os.environ.get("WORLD_SIZE", "1"))):
            raise
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise PeerLost(f"the processes of this run do not find each other ({place}): {problem}") from None


@functools.cache
def keep_memory() -> None:
    """Make glibc keep big blocks: handing them back after every step costs up to a third of it on a CPU."""
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            trim_threshold, mmap_threshold = -1, -3
            libc.mallopt(mmap_threshold, 1 << 30)
            libc.mallopt(trim_threshold, (1 << 31) - 1)


def choose_attention(model: nn.Module, accelerator: Accelerator) -> None:
    """timm's attention as it trains fastest, see :func:`sweet.models.forward.attention`."""
    if accelerator.device.type == "cpu" and accelerator.mixed_precision != "no":
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010  a module takes any attribute, its type does not say so
