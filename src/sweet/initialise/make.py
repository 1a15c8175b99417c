"""``sweet init``: a source folder becomes a model folder, of a given size or of one that fits a budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sweet.costs.budget import Budget, Choice
from sweet.data import open_images
from sweet.errors import UserError
from sweet.files import sha256
from sweet.models.config import ViTConfig
from sweet.models.vit import build_vit
from sweet.storage import hub
from sweet.storage.cards import model_card
from sweet.storage.folders import StoredSource, load_source
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import FolderRecord, InitRecord
from sweet.template.sizes import Size

from .apply import Switch, images_used, initialise, looks_at_images, switches
from .shape import resolve_shape


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
    img_size: int | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    given: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Write a model folder ``out``: ``depth`` blocks and ``heads`` heads, or a size within ``budget``.

    ``source`` is a folder or a name of the hub. ``fit`` names images for methods that look at some, ``fit_images`` how
    many of them; ``given`` are switches of the method. ``img_size`` and ``patch_size`` are in pixels, by default the
    source's. A method that trains does so on ``device`` and writes its loss curve to the folder ``run``
    (metrics.jsonl). Returns what was made, for JSON. Raises UserError for an impossible size, a method that cannot make
    it or a folder that is not a source.
    """
    method_switches = switches(method, given)
    if fit is not None and not looks_at_images(method, method_switches):
        raise UserError(f"--fit {fit}: --method {method} looks at no images")
    target = _resolve(source, depth, heads, budget, img_size, patch_size, in_chans)
    images = None if fit is None else open_images(fit, "train")

    began = time.perf_counter()
    weights = initialise(
        method,
        target.stored,
        target.size,
        data=images,
        budget=fit_images,
        seed=seed,
        device=device,
        run=run,
        **method_switches,
    )
    config = target.stored.config.resized(target.size.depth, target.size.heads)
    vit = build_vit(config, weights, img_size=img_size, patch_size=patch_size, in_chans=in_chans)
    seconds = time.perf_counter() - began

    used = images_used(method, fit_images, images, method_switches)
    record = _record(target, method, method_switches, used, seed, vit)
    assert record.made is not None
    made = record.made.to_dict()
    recipe = "".join(f"{key}: {value}\n" for key, value in made.items())
    write_folder(out, (TENSORS["model"], vit.state_dict()), record, recipe, model_card(record))
    chosen = {} if target.choice is None else {"budget": target.choice.to_dict()}
    return {"size": str(target.size), "seconds": round(seconds, 3), "out": str(out), **made, **chosen}


@dataclass(frozen=True)
class _Target:
    """The source, the size to make, and the shape of the model: another image, patch or channel size included."""

    folder: Path
    stored: StoredSource
    size: Size
    config: ViTConfig
    choice: Choice | None


def _resolve(
    source: str,
    depth: int | None,
    heads: int | None,
    budget: Budget | None,
    img_size: int | None,
    patch_size: int | None,
    in_chans: int | None,
) -> _Target:
    """Raises UserError for a shape that cannot be made, before any work."""
    folder = hub.local_folder(source)
    stored = load_source(folder)
    shape = resolve_shape(
        stored.config, depth, heads, budget, img_size=img_size, patch_size=patch_size, in_chans=in_chans
    )
    return _Target(folder, stored, shape.size, shape.config, shape.choice)


def _record(
    target: _Target, method: str, method_switches: Mapping[str, Switch], images: int, seed: int, vit: nn.Module
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
            source_sha256=sha256(target.folder / TENSORS[stored.record.kind]),
            source_data=stored.record.origin,
            parameters=sum(p.numel() for p in vit.parameters()),
        ),
    )
