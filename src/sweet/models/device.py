"""Which device a name means."""

from __future__ import annotations

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
