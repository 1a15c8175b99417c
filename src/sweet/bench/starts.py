"""The initial weights of a cell. Those that images are needed for are made once for each replicate, as a source is, and
lie in the cache beside the sources."""

from __future__ import annotations

import os
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet.files import cache_folder, read_json, read_tensors, write_json, write_tensors
from sweet.storage.records import Record
from sweet.template.sizes import Size

from .arms import Arm
from .protocol import Cell, Protocol
from .sources import TRAINING_VERSION, digest

if TYPE_CHECKING:
    from torch import Tensor

    from sweet.storage.folders import StoredSource


class StartRecord(Record):
    """What making initial weights took; seconds are None where the making was interrupted."""

    init_seconds: float | None = None
    init_images: int = 0


def switches_of(arm: Arm, layers: str) -> dict[str, Any]:
    """All switches of an arm: one rule for the layers of all methods of a table, unless an arm has its own."""
    from sweet.initialise.apply import switches

    common = {"layers": layers} if "layers" in switches(arm.method) else {}
    return switches(arm.method, common | dict(arm.switches))


def start_folder(protocol: Protocol, cell: Cell, source: Path, data: str) -> Path | None:
    """Where a start is kept, for all cells of its replicate; None where making it takes no images."""
    from sweet.initialise.apply import looks_at_images

    arm = protocol.arms[cell.arm]
    chosen = switches_of(arm, protocol.layers)
    if not looks_at_images(arm.method, chosen):
        return None
    about = digest([source.name, chosen, Path(data).name, TRAINING_VERSION, protocol.replicate(cell.seed)])
    return cache_folder() / "starts" / f"{arm.method}-{cell.size}-{about}"


def start_of(
    protocol: Protocol, cell: Cell, stored: StoredSource, source: Path, data: str, device: str
) -> tuple[dict[str, Tensor], StartRecord]:
    """Initial weights of a cell under timm's names: from its folder, or made now and kept there.

    ``stored`` is what lies in the folder ``source``. A training that was interrupted goes on.
    """
    folder = start_folder(protocol, cell, source, data)
    if folder is None:
        return _initialise(protocol, cell, stored, data, device, None)
    record, tensors = folder / "start.json", folder / "weights.safetensors"
    if not record.is_file():
        weights, made = _initialise(protocol, cell, stored, data, device, folder)
        write_tensors(tensors, {name: value.clone() for name, value in weights.items()})
        write_json(record, made.model_dump())
    return read_tensors(tensors), StartRecord.model_validate(read_json(record))


def make_start(protocol: Protocol, cell: Cell, source: Path, data: str, device: str) -> None:
    """Fill the folder of a start, for :func:`start_of` in other processes."""
    from sweet.storage.folders import load_source

    start_of(protocol, cell, load_source(source), source, data, device)


def _initialise(
    protocol: Protocol, cell: Cell, stored: StoredSource, data: str, device: str, run: Path | None
) -> tuple[dict[str, Tensor], StartRecord]:
    from sweet.data import open_images
    from sweet.initialise.apply import images_used, initialise

    arm = protocol.arms[cell.arm]
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
            seed=protocol.replicate(cell.seed) if run else cell.seed,
            device=device,
            run=run,
            **switches_of(arm, protocol.layers),
        )
    seconds = None if resumed else round(time.perf_counter() - began, 3)  # of the rest alone it would be wrong
    used = images_used(arm.method, None, images, arm.switches)
    return weights, StartRecord(init_seconds=seconds, init_images=used)
