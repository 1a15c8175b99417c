"""The initial weights of a cell. Those that images are needed for are made once for each replicate, as a source is, and
lie in the cache beside the sources."""

from __future__ import annotations

import os
import time
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet.files import cache_folder, read_json, read_tensors, write_json, write_tensors
from sweet.initialise.registry import AFTER, NAMES
from sweet.storage.records import Record
from sweet.template.sizes import Size

from .arms import Arm
from .protocol import Cell, Protocol
from .sources import TRAINING_VERSION, digest, images_name

if TYPE_CHECKING:
    from torch import Tensor

    from sweet.storage.folders import StoredSource


RECORD = "start.json"


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
    about = digest([source.name, chosen, images_name(data), TRAINING_VERSION, protocol.replicate(cell.seed)])
    return cache_folder() / "starts" / f"{arm.method}-{cell.size}-{about}"


def start_of(
    protocol: Protocol, cell: Cell, stored: StoredSource, source: Path, data: str, device: str
) -> tuple[dict[str, Tensor], StartRecord]:
    """Initial weights of a cell under timm's names: from its folder, or made now and kept there.

    ``stored`` is what lies in the folder ``source``. A training that was interrupted goes on.
    """
    folder = start_folder(protocol, cell, source, data)
    if folder is None:
        return _initialise(protocol, cell, stored, source, data, device, None)
    record, tensors = folder / RECORD, folder / "weights.safetensors"
    if not record.is_file():
        weights, made = _initialise(protocol, cell, stored, source, data, device, folder)
        write_tensors(tensors, {name: value.clone() for name, value in weights.items()})
        write_json(record, made.model_dump())
    return read_tensors(tensors), StartRecord.model_validate(read_json(record))


def make_start(protocol: Protocol, cell: Cell, source: Path, data: str, device: str) -> None:
    """Fill the folder of a start, for :func:`start_of` in other processes."""
    from sweet.storage.folders import load_source

    start_of(protocol, cell, load_source(source), source, data, device)


def starts_to_make(protocol: Protocol, cell: Cell, source: Path, data: str) -> list[tuple[Path, Protocol]]:
    """Folders that :func:`make_start` has to fill for a cell, in this order, each with the protocol to give to it."""
    folder = start_folder(protocol, cell, source, data)
    if folder is None or (folder / RECORD).is_file():
        return []
    plain = unfinished(protocol, cell)
    before = starts_to_make(plain, cell, source, data) if plain is not None else []
    return [*before, (folder, protocol)]


def unfinished(protocol: Protocol, cell: Cell) -> Protocol | None:
    """The protocol with the cell's arm as it is before a finished start is rescaled or conditioned.

    Only where making it takes a training, which is then shared with the row that is not; else None.
    """
    arm = protocol.arms[cell.arm]
    plain = {name: value for name, value in arm.switches.items() if name not in AFTER}
    if plain == arm.switches or not NAMES[arm.method].trains:
        return None
    return replace(protocol, arms={**protocol.arms, cell.arm: replace(arm, switches=plain)})


def _initialise(
    protocol: Protocol, cell: Cell, stored: StoredSource, source: Path, data: str, device: str, run: Path | None
) -> tuple[dict[str, Tensor], StartRecord]:
    from sweet.data import open_images
    from sweet.initialise.apply import finished, images_used, initialise

    arm, size = protocol.arms[cell.arm], Size.parse(cell.size, stored.config.head_dim)
    chosen = switches_of(arm, protocol.layers)
    images, seed = (open_images(data, "train"), protocol.replicate(cell.seed)) if run else (None, cell.seed)
    before: float | None = 0.0
    plain = unfinished(protocol, cell)
    if plain is not None:
        weights, made = start_of(plain, cell, stored, source, data, device)
        before = made.init_seconds
    elif run is not None and (run / "checkpoints").is_dir():
        before = None  # of the rest alone the seconds would be wrong
    began = time.perf_counter()
    if plain is not None:
        after = {name: chosen[name] for name in AFTER if name in chosen}
        weights = finished(weights, stored, size, after, data=images, seed=seed)
    else:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # its progress is not the table's
            weights = initialise(arm.method, stored, size, data=images, seed=seed, device=device, run=run, **chosen)
    seconds = None if before is None else round(before + time.perf_counter() - began, 3)
    return weights, StartRecord(init_seconds=seconds, init_images=images_used(arm.method, None, images, chosen))
