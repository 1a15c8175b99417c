"""The start of a run folder: its recipe and its machine; a resumed run must have the same recipe."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import timm
import torch

from sweet.errors import UserError
from sweet.files import dotted, read_json, write_json, write_text
from sweet.recipes.loader import dump_recipe, load_recipe
from sweet.recipes.schema import TrainKeys, without_path

from .nonfinite import read_events
from .trackers import check_trackers

MODEL = "model_sha256"  # in env.json: the weights that a fine-tuning began with
FREE = ("device", "workers", "checkpoint_every", "log_with")  # may change when a run is resumed


def begin(run: Path, recipe: TrainKeys, *, resume: bool, task: str | None = None, model: str | None = None) -> None:
    """Write ``recipe.yaml`` and ``env.json``. Raises UserError when a run is resumed with another recipe.

    Or where its trackers are not installed. The ``task`` of a fine-tuning and the checksum of its ``model`` are written
    down for whoever resumes it (:func:`sweet.storage.paths.task_of_run`); another model is refused as well.
    """
    check_recipe(run, recipe, resume=resume)
    machine = run / "env.json"
    before = read_json(machine).get(MODEL) if resume and model is not None and machine.is_file() else None
    if before not in (None, model):
        raise UserError(f"MODEL: --resume: {run} was begun with another one; name that, or start anew with --overwrite")
    about = {key: value for key, value in (("task", task), (MODEL, model)) if value is not None}
    write_json(machine, environment() | about)
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
