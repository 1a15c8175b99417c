"""The initial weights of a cell. Those that images are needed for are made once, from one seed, as a source is: they
lie in the cache beside the sources, and the seeds of a cell are seeds of its fine-tuning."""

from __future__ import annotations

import os
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from sweet.files import read_json, read_tensors, write_json, write_tensors
from sweet.template.sizes import Size

from .arms import Arm
from .protocols import Cell, Protocol
from .sources import cache_folder, digest

Start = tuple[dict[str, Any], dict[str, Any]]  # weights under timm's names, and what making them took


def switches_of(arm: Arm, layers: str) -> dict[str, Any]:
    """All switches of an arm: one rule for the layers of all methods of a table, unless an arm has its own."""
    from sweet.initialise import switches

    common = {"layers": layers} if "layers" in switches(arm.method) else {}
    return switches(arm.method, common | dict(arm.switches))


def start_folder(told: Protocol, cell: Cell, source: Path, data: str) -> Path | None:
    """Where the start of all seeds is kept; None where making it takes no images."""
    from sweet.initialise import looks_at_images

    arm = told.arms[cell.arm]
    switches = switches_of(arm, told.layers)
    if not looks_at_images(arm.method, switches):
        return None
    about = digest([source.name, switches, Path(data).name])
    return cache_folder() / "starts" / f"{arm.method}-{cell.size}-{about}"


def make_start(told: Protocol, cell: Cell, source: Path, data: str, device: str) -> dict[str, Any]:
    """Fill the folder of a start, unless it is; an interrupted training goes on. Returns what it took."""
    from sweet.models.store import load_source

    folder = start_folder(told, cell, source, data)
    assert folder is not None
    if not (folder / "start.json").is_file():
        weights, took = _initialise(told, cell, load_source(source), data, device, folder)
        write_tensors(folder / "weights.safetensors", {name: value.clone() for name, value in weights.items()})
        write_json(folder / "start.json", took)
    facts: dict[str, Any] = read_json(folder / "start.json")
    return facts


def start_of(told: Protocol, cell: Cell, stored: Any, source: Path, data: str, device: str) -> Start:
    """The start of a cell, from its folder or made now."""
    folder = start_folder(told, cell, source, data)
    if folder is None:
        return _initialise(told, cell, stored, data, device, None)
    took = make_start(told, cell, source, data, device)  # made already, unless another bench was done with it
    return read_tensors(folder / "weights.safetensors"), took


def _initialise(told: Protocol, cell: Cell, stored: Any, data: str, device: str, run: Path | None) -> Start:
    from sweet.data import open_images
    from sweet.initialise import images_used, initialise

    arm = told.arms[cell.arm]
    size = Size.parse(cell.size, stored.config.head_dim)
    images = open_images(data, "train") if run else None
    resumed = run is not None and (run / "checkpoints").is_dir()
    began = time.perf_counter()
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # its progress is not the table's
        weights = initialise(
            arm.method,
            stored,
            size,
            data=images,
            seed=0 if run else cell.seed,
            device=device,
            run=run,
            **switches_of(arm, told.layers),
        )
    took = {
        "init_seconds": None if resumed else round(time.perf_counter() - began, 3),  # of a part it would be wrong
        "init_images": images_used(arm.method, None, images, arm.switches),
    }
    return weights, took
