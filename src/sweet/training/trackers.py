"""Where the curves of a run go besides ``metrics.jsonl``: accelerate's trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker, get_available_trackers

from sweet.errors import UserError

PROJECT = "sweet"  # under which a service lists the runs
NAME_OF_RUN = {"wandb": "name", "swanlab": "experiment_name", "trackio": "name"}  # how they are given it


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for a tracker that is not installed."""
    installed = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in installed:
            package = name.replace("_", "-")
            raise UserError(f"log_with={name}: is not installed (pip install {package}); here: {', '.join(installed)}")


def start_trackers(accelerator: Accelerator, run: Path, names: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Begin the curves of a run: TensorBoard's lie in ``<run>/tensorboard``.

    A service gets the name of the folder, and the ``settings``.
    """
    if accelerator.is_main_process:
        own = {"tensorboard": TensorBoardTracker("tensorboard", run)} if "tensorboard" in names else {}
        accelerator.log_with = [own.get(name, name) for name in names]
        accelerator.init_trackers(PROJECT, init_kwargs={name: {key: run.name} for name, key in NAME_OF_RUN.items()})
        for tracker in accelerator.trackers:
            if tracker.name not in own:
                tracker.store_init_configuration(dict(settings))
