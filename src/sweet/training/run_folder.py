"""The start of a run folder: what was asked for and on which machine; a resumed run must ask for the same."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import timm
import torch
import yaml

from sweet.errors import UserError
from sweet.files import dotted, write_json, write_text
from sweet.recipes.loader import dump_recipe
from sweet.recipes.schema import TrainKeys, without_path

FREE = ("device", "workers", "checkpoint_every")  # may change between the parts of one run


def begin(run: Path, recipe: TrainKeys, *, resume: bool) -> None:
    """Write ``recipe.yaml`` and ``env.json``. Raises UserError when a run is resumed with another recipe."""
    saved = run / "recipe.yaml"
    text = dump_recipe(recipe)
    if resume and saved.is_file():
        before, now = (dotted(yaml.safe_load(t)) for t in (saved.read_text(encoding="utf-8"), text))
        for told in (before, now):  # the images may have moved
            told["data.source"] = without_path(told["data.source"] or "")
        for key in sorted(before.keys() | now.keys()):
            if key not in FREE and before.get(key) != now.get(key):
                raise UserError(
                    f"--resume: {key}={now.get(key)}, but {run} was begun with {key}={before.get(key)}; "
                    "leave it out, or start anew with --overwrite"
                )
    write_text(saved, text)
    write_json(run / "env.json", environment())


def environment() -> dict[str, Any]:
    """Versions and hardware that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
