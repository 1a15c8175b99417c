"""The start of a run folder: its recipe and its machine; a resumed run must have the same recipe."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import timm
import torch

from sweet.errors import UserError
from sweet.files import dotted, write_json, write_text
from sweet.recipes.loader import dump_recipe, load_recipe
from sweet.recipes.schema import TrainKeys, without_path

from .nonfinite import read_events
from .trackers import check_trackers

FREE = ("device", "workers", "checkpoint_every", "log_with")  # may change when a run is resumed


def begin(run: Path, recipe: TrainKeys, *, resume: bool, task: str | None = None) -> None:
    """Write ``recipe.yaml`` and ``env.json``. Raises UserError when a run is resumed with another recipe.

    Or where its trackers are not installed. The ``task`` of a fine-tuning is written down for whoever resumes it
    (:func:`sweet.storage.paths.task_of_run`).
    """
    check_recipe(run, recipe, resume=resume)
    write_json(run / "env.json", environment() | ({} if task is None else {"task": task}))
    write_text(run / "recipe.yaml", dump_recipe(recipe))  # the last: by it a run is known


def check_recipe(run: Path, recipe: TrainKeys, *, resume: bool) -> None:
    """What :func:`begin` refuses; writes nothing."""
    check_trackers(recipe.log_with)
    saved = run / "recipe.yaml"
    if resume and saved.is_file():
        # read as a recipe: a key that has come since then has its default in both
        before, now = (dotted(one.model_dump(mode="json")) for one in (load_recipe(type(recipe), saved), recipe))
        for keys in (before, now):  # the images may have moved
            keys["data.source"] = without_path(keys["data.source"] or "")
        slower = bool(read_events(run)) and now["lr"] < before["lr"]  # after a loss that was no number
        free = (*FREE, "lr") if slower else FREE
        for key in sorted(before.keys() | now.keys()):
            if key not in free and before.get(key) != now.get(key):
                written, given = (json.dumps(keys.get(key), ensure_ascii=False).strip('"') for keys in (before, now))
                raise UserError(
                    f"--resume: {key}={given}, but {run} was begun with {key}={written}; leave it out, or start anew "
                    "with --overwrite"
                )


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
