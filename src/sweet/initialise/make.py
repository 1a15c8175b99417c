"""``sweet init``: a source folder becomes a model folder, of a given size or of one that fits a budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweet.console import say, warn
from sweet.convert.cached import as_source
from sweet.costs.budget import Budget
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
from .shape import Shape, resolve_shape

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
    looks = looks_at_images(method, switches(method, given))
    for option, value in (("--fit", fit), ("--fit-images", fit_images)):
        if value is not None and not looks:
            raise UserError(f"{option} {value}: --method {method} looks at no images")
    fit = data if fit is None and looks else fit
    folder = as_source(source, data=data, img_size=img_size, patch_size=patch_size, device=device)
    resolve_device(device)
    whole = load_source(folder)
    target = resolve_shape(
        whole.config, depth, heads, budget, img_size=img_size, patch_size=patch_size, in_chans=in_chans
    )
    chosen = recommended(method, whole, given)
    images = None if fit is None else open_images(fit, "train", pixels=whole.data)
    trains, size, checksum = NAMES[method].trains, target.config.size, sha256(folder / TENSORS[whole.record.kind])
    if run is not None and trains:  # what a training that goes on must have in common with its beginning
        shape = {"source": checksum, "size": str(size), "img_size": size_text(target.config.img_size)}
        looked_at = {"fit": None if fit is None else without_path(fit), "fit_images": fit_images}
        same_settings(run, {"method": method, **shape, "seed": seed, **looked_at, **chosen})
    began = time.perf_counter()
    stored = at_size_of_use(whole, method, chosen, img_size, patch_size)
    how: dict[str, Any] = {"data": images, "budget": fit_images, "seed": seed, "device": device, "run": run}
    weights = initialise(method, stored, size, **(how | chosen))
    config = stored.config.resized(size.depth, size.heads)
    vit = build_vit(config, weights, img_size=img_size, patch_size=patch_size, in_chans=in_chans)
    seconds = time.perf_counter() - began
    made: dict[str, object] = {**chosen, "images": images_used(method, fit_images, images, chosen), "seed": seed}
    made |= {"source_sha256": checksum, "parameters": sum(p.numel() for p in vit.parameters())}
    if trains:
        made |= {"train_seconds": round(seconds, 1), **training_cost(method, stored.config, config, chosen)}
    record = _record(whole, target.config, method=method, **made)
    write_folder(out, (TENSORS["model"], vit.state_dict()), record, as_yaml(_made(record)), model_card(record))
    return _summary(record, target, whole.config.size, seconds, out)


def _made(record: FolderRecord) -> dict[str, object]:
    """What the model was made by; ``recipe.yaml`` has it."""
    assert record.made is not None
    return {key: value for key, value in record.made.to_dict().items() if key != "origin"}


def _summary(record: FolderRecord, target: Shape, own: Size, seconds: float, out: Path) -> dict[str, object]:
    """What was made, with notes on a size that a budget leaves unused or that is far from the source's ``own``."""
    made, choice, origin = target.config.size, target.choice, record.origin_record
    if choice is not None and choice.note is not None:
        warn(f"{choice.budget.option}: {choice.note}")
    if made.depth > LARGE * own.depth or made.heads > LARGE * own.heads:
        say(f"note: {made} is more than {LARGE} times the source's {own}: most of it are copies")
    elif made.depth > own.depth or made.heads > own.heads:
        say(f"note: {made} is larger than the source's {own}: it starts as the source, and gains little by its size")
    size = {"size": str(made), "seconds": round(seconds, 3), "out": str(out)}
    licence = {"licence": origin.licence} if origin and origin.licence else {}
    return size | _made(record) | licence | ({} if choice is None else {"budget": choice.to_dict()})


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


def _record(source: StoredSource, config: ViTConfig, **made: Any) -> FolderRecord:
    """The record of a model of shape ``config``; ``made`` are fields of :class:`InitRecord` besides the source's."""
    data = source.data.with_channels(config.in_chans)
    return FolderRecord(
        kind="model",
        vit=config,
        data=data.model_copy(update={"img_size": config.img_size, "classes": None}),
        made=InitRecord(
            **made,
            source_kind=source.record.kind,
            source_size=str(source.config.size),
            source_data=source.record.origin,
            origin=source.record.origin_record,
        ),
    )
