"""The start of a run folder: its recipe and its machine; a resumed run must have the same recipe."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import timm
import torch
import yaml

from sweet.errors import UserError
from sweet.files import dotted, write_json, write_text
from sweet.recipes.loader import dump_recipe
from sweet.recipes.schema import TrainKeys, without_path

from .nonfinite import read_events

FREE = ("device", "workers", "checkpoint_every")  # may change when a run is resumed


def begin(run: Path, recipe: TrainKeys, *, resume: bool) -> None:
    """Write ``recipe.yaml`` and ``env.json``. Raises UserError when a run is resumed with another recipe."""
    saved = run / "recipe.yaml"
    text = dump_recipe(recipe)
    if resume and saved.is_file():
        before, now = (dotted(yaml.safe_load(t)) for t in (saved.read_text(encoding="utf-8"), text))
        for keys in (before, now):  # the images may have moved
            keys["data.source"] = without_path(keys["data.source"] or "")
        slower = bool(read_events(run)) and now["lr"] < before["lr"]  # after a loss that was no number
        free = (*FREE, "lr") if slower else FREE
        for key in sorted(before.keys() | now.keys()):
            if key not in free and before.get(key) != now.get(key):
                raise UserError(
                    f"--resume: {key}={now.get(key)}, but {run} was begun with {key}={before.get(key)}; "
                    "leave it out, or start anew with --overwrite"
                )
    write_text(saved, text)
    write_json(run / "env.json", environment())


def environment() -> dict[str, str | int | None]:
    """Versions and hardware that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),  # the instructions that kernels use
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
