"""``sweet init``: a source folder becomes a model folder, of a given size or of one that fits a budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from sweet.console import say, warn
from sweet.convert.cached import as_source
from sweet.costs.budget import Budget, Choice
from sweet.data import open_images
from sweet.errors import UserError
from sweet.files import sha256
from sweet.models.config import ViTConfig
from sweet.models.device import resolve_device
from sweet.models.vit import build_vit
from sweet.recipes.loader import as_yaml
from sweet.recipes.schema import without_path
from sweet.storage.cards import model_card
from sweet.storage.folders import StoredSource, load_source
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.outputs import TRAINING
from sweet.storage.records import FolderRecord, InitRecord, read_record
from sweet.template.image_size import ImageSize, size_text
from sweet.template.sizes import Size
from sweet.training.short_run import same_settings

from .apply import at_size_of_use, images_used, initialise, looks_at_images, recommended, switches, training_cost
from .registry import NAMES
from .shape import resolve_shape

LARGE = 2  # times a source's blocks or heads: as far as budgets choose


def initialise_to(
    source: str,
    out: Path,
    *,
    depth: int | None = None,
    heads: int | None = None,
    budget: Budget | None = None,
    method: str = "sweet",
    fit: str | None = None,
    fit_images: int | None = None,
    data: str | None = None,
    img_size: ImageSize | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    given: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Write a model folder ``out``: ``depth`` blocks and ``heads`` heads, or a size within ``budget``.

    ``source`` is a source's folder or name of the hub, or a checkpoint of others that is converted on the way, its
    order computed from ``data``. ``fit`` names images for methods that look at some (default: ``data``), ``fit_images``
    how many; ``given`` are switches of the method. ``img_size`` and ``patch_size`` are in pixels. A method that trains
    does so on ``device``, with its loss curve and checkpoints in ``run``. Returns what was made, for JSON. Raises
    UserError for an impossible size, a method that cannot make it or a folder that is not a source.
    """
    method_switches = switches(method, given)
    if fit is not None and not looks_at_images(method, method_switches):
        raise UserError(f"--fit {fit}: --method {method} looks at no images")
    if fit_images is not None and not looks_at_images(method, method_switches):
        raise UserError(f"--fit-images {fit_images}: --method {method} looks at no images")
    fit = data if fit is None and looks_at_images(method, method_switches) else fit
    seen_at = img_size if patch_size is None else None  # as in at_size_of_use
    source_folder = as_source(source, data=data, img_size=seen_at, device=device)
    target = _resolve(source_folder, depth, heads, budget, img_size, patch_size, in_chans, device)
    method_switches = recommended(method, target.stored, given)
    images = None if fit is None else open_images(fit, "train", pixels=target.stored.data)
    if run is not None and NAMES[method].trains:
        looked_at = {"fit": None if fit is None else without_path(fit), "fit_images": fit_images}
        same_settings(run, {"method": method, **target.begun, "seed": seed, **looked_at, **method_switches})
    began = time.perf_counter()
    stored = at_size_of_use(target.stored, method, method_switches, img_size, patch_size)
    how: dict[str, Any] = {"data": images, "budget": fit_images, "seed": seed, "device": device, "run": run}
    weights = initialise(method, stored, target.size, **(how | method_switches))
    config = stored.config.resized(target.size.depth, target.size.heads)
    vit = build_vit(config, weights, img_size=img_size, patch_size=patch_size, in_chans=in_chans)
    seconds = time.perf_counter() - began
    used = images_used(method, fit_images, images, method_switches)
    record = _record(target, method, method_switches, used, seed, vit)
    if NAMES[method].trains and record.made is not None:
        spent = training_cost(method, stored.config, config, method_switches)
        made = record.made.model_copy(update={"train_seconds": round(seconds, 1), **spent})
        record = record.model_copy(update={"made": made})
    write_folder(out, (TENSORS["model"], vit.state_dict()), record, as_yaml(_made(record)), model_card(record))
    return _summary(record, target, seconds, out)


def _made(record: FolderRecord) -> dict[str, object]:
    """What the model was made by; ``recipe.yaml`` has it."""
    assert record.made is not None
    return {key: value for key, value in record.made.to_dict().items() if key != "origin"}


def _summary(record: FolderRecord, target: _Target, seconds: float, out: Path) -> dict[str, object]:
    origin = None if record.made is None else record.made.to_dict().get("origin")
    chosen = {} if target.choice is None else {"budget": target.choice.to_dict()}
    if target.choice is not None and target.choice.note is not None:
        warn(f"{target.choice.budget.option}: {target.choice.note}")
    own, made = target.stored.config.size, target.size
    if made.depth > LARGE * own.depth or made.heads > LARGE * own.heads:
        say(f"note: {made} is more than {LARGE} times the source's {own}: most of it are copies")
    elif made.depth > own.depth or made.heads > own.heads:
        say(f"note: {made} is larger than the source's {own}: it starts as the source, and gains little by its size")
    size = {"size": str(target.size), "seconds": round(seconds, 3), "out": str(out)}
    return size | _made(record) | _licence(origin) | chosen


def finished(out: Path, wanted: Mapping[str, object]) -> dict[str, object] | None:
    """What ``out`` is, when ``--resume`` finds it made; None where a training has to go on.

    Raises UserError where there is neither, and where its shape, its method or its seed are not the ``wanted`` ones.
    """
    if (out / "config.json").is_file():
        record = read_record(out, ("model",))
        for name, value in wanted.items():
            of = record.made if name in ("method", "seed") else record.vit
            if value not in (None, found := getattr(of, name, None)):
                given, made = (size_text(v) if isinstance(v, tuple) else v for v in (value, found))
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"--resume: {option} {given}, but {out} holds a model of {option} {made}")
        return {"size": str(record.vit.size), "out": str(out), **(record.made.to_dict() if record.made else {})}
    if not (out / TRAINING).is_dir():
        raise UserError(f"--resume: {out} holds no training that was begun")
    return None


def _licence(origin: Mapping[str, object] | None) -> dict[str, object]:
    return {"licence": origin["licence"]} if origin and origin.get("licence") else {}


@dataclass(frozen=True)
class _Target:
    """The source, the size to make, and the shape of the model: another image, patch or channel size included."""

    folder: Path
    stored: StoredSource
    size: Size
    config: ViTConfig
    choice: Choice | None

    @cached_property
    def sha256(self) -> str:
        """The checksum of the source's weights."""
        return sha256(self.folder / TENSORS[self.stored.record.kind])

    @property
    def begun(self) -> dict[str, str]:
        """What a training that goes on must have in common with its beginning."""
        return {"source": self.sha256, "size": str(self.size), "img_size": size_text(self.config.img_size)}


def _resolve(
    folder: Path,
    depth: int | None,
    heads: int | None,
    budget: Budget | None,
    img_size: ImageSize | None,
    patch_size: int | None,
    in_chans: int | None,
    device: str,
) -> _Target:
    """Raises UserError for a shape that cannot be made or a device that is not there, before any work."""
    resolve_device(device)
    stored = load_source(folder)
    shape = resolve_shape(
        stored.config, depth, heads, budget, img_size=img_size, patch_size=patch_size, in_chans=in_chans
    )
    return _Target(folder, stored, shape.size, shape.config, shape.choice)


def _record(
    target: _Target, method: str, method_switches: Mapping[str, Any], images: int, seed: int, vit: nn.Module
) -> FolderRecord:
    stored, config = target.stored, target.config
    data = stored.data.with_channels(config.in_chans)
    return FolderRecord(
        kind="model",
        vit=config,
        data=data.model_copy(update={"img_size": config.img_size, "classes": None}),
        made=InitRecord(
            method=method,
            **method_switches,
            images=images,
            seed=seed,
            source_kind=stored.record.kind,
            source_size=str(stored.config.size),
            source_sha256=target.sha256,
            source_data=stored.record.origin,
            origin=stored.record.origin_record,
            parameters=sum(p.numel() for p in vit.parameters()),
        ),
    )
