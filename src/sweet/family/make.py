"""``sweet family``: models of several sizes from one source, fine-tuned one after the other, and a Pareto chart."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweet.costs.budget import size_cost
from sweet.errors import UserError
from sweet.files import read_json, sha256, write_json
from sweet.initialise.apply import switches
from sweet.initialise.make import initialise_to
from sweet.initialise.registry import NAMES
from sweet.models.config import ViTConfig
from sweet.models.device import resolve_device
from sweet.recipes.schema import FinetuneRecipe, without_path
from sweet.storage.folders import StoredSource, load_source, read_record
from sweet.storage.layout import TENSORS
from sweet.tasks.registry import TASKS, Metric, task_class
from sweet.template.sizes import Size
from sweet.training.finetune import finetune, open_splits, with_model_data
from sweet.training.run_folder import begin

from .chart import on_front, write_chart, write_table
from .sizes import members

SAME = ("source_sha256", "task", "method", "img_size")  # in all parts of one family


def family(
    source: Path,
    sizes: Sequence[str],
    recipe: FinetuneRecipe,
    out: Path,
    *,
    task: str = "classify",
    method: str = "sweet",
    img_size: int | None = None,
    latency: str | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make, fine-tune and measure a model of every size; returns the rows of the table that it writes.

    ``sizes`` are numbers of parameters (``12M``) or names (``L6H6``). Each model is a run folder ``<out>/<size>``.
    ``family.json``, ``table.md`` and ``pareto.png|svg`` are written anew after each, so that an interrupted family
    is worth something; with ``resume`` it goes on, and takes further sizes. ``latency`` names a device on which one
    image is timed. A method that looks at images is shown the training images. Raises UserError for bad input, before
    anything is written.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("sweet family: runs in one process; fine-tune the sizes one by one with torchrun instead")
    task_class(task)
    metric = TASKS[task]
    stored = load_source(source)
    config = _members_config(stored, img_size)
    chosen = members(sizes, config)
    place = None if latency is None else resolve_device(latency)
    switches(method)
    recipe = _checked(stored, recipe, source, task, config)
    about = {
        "source": source.name,
        "source_sha256": sha256(source / TENSORS[stored.record.kind]),
        "task": task,
        "data": without_path(recipe.data.source or ""),
        "method": method,
        "img_size": config.img_size,
        "metric": metric.key,
    }
    before = _earlier(out, about) if resume else {}

    open_sizes = [size for size in chosen if not (out / str(size) / "config.json").is_file()]
    # The largest first: a method that cannot make the sizes says so before anything is written.
    for size in sorted(open_sizes, key=lambda size: size_cost(config, size)["params"], reverse=True):
        start = _start(out, size)
        if not (start / "config.json").is_file():
            initialise_to(
                str(source),
                start,
                depth=size.depth,
                heads=size.heads,
                method=method,
                fit=recipe.data.source if NAMES[method].images != 0 else None,
                img_size=img_size,
                seed=recipe.seed,
                device=recipe.device,
            )
    begin(out, recipe, resume=resume)
    rows = dict(before)
    for number, (size, asked) in enumerate(chosen.items(), 1):
        name = str(size)
        counted = size_cost(config, size)
        if not quiet:
            print(f"[{number}/{len(chosen)}] {name}: {counted['params']:,} parameters", file=sys.stderr, flush=True)
        finetune(_start(out, size), recipe, out / name, task=task, resume=True, quiet=quiet)
        shutil.rmtree(_start(out, size), ignore_errors=True)
        record = read_record(out / name, ("model",))
        rows[name] = {
            "size": name,
            "asked": asked,
            "width": size.width,
            **counted,
            "latency": before.get(name, {}).get("latency"),
            "metrics": record.metrics or {},
            "training": record.training.to_dict() if record.training else {},
        }
        if place is not None:
            rows[name]["latency"] = _latency(config.resized(size.depth, size.heads), place)
        _write(out, about, list(rows.values()), metric)
    shutil.rmtree(out / ".starts", ignore_errors=True)
    return {"members": _shown(list(rows.values()), metric), "metric": metric.key, "out": str(out)}


def _members_config(stored: StoredSource, img_size: int | None) -> ViTConfig:
    config = stored.config
    if img_size is not None and img_size % config.patch_size:
        raise UserError(f"--img-size {img_size} is not a multiple of the source's patch size {config.patch_size}")
    return config if img_size is None else replace(config, img_size=img_size)


def _checked(
    stored: StoredSource, recipe: FinetuneRecipe, source: Path, task: str, config: ViTConfig
) -> FinetuneRecipe:
    """The recipe that all members share; UserError now for what the first fine-tuning would say later."""
    data = stored.data.model_copy(update={"img_size": config.img_size})
    recipe = with_model_data(recipe, data, source)
    for images in open_splits(recipe):
        task_class(task).classes_of(images)
    return recipe


def _earlier(out: Path, about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{size: row} of what ``out`` holds already. Raises UserError when that is another family."""
    path = out / "family.json"
    if not path.is_file():
        return {}
    told = read_json(path)
    for key in SAME:
        if told[key] != about[key]:
            raise UserError(f"--resume: {out} was begun with {key} {told[key]}, now it is {about[key]}")
    return {row["size"]: row for row in told["members"]}


def _start(out: Path, size: Size) -> Path:
    """Where a model waits for its fine-tuning."""
    return out / ".starts" / str(size)


def _latency(config: ViTConfig, place: Any) -> dict[str, Any]:
    from sweet.costs.latency import measure_latency, protocol

    timing = measure_latency(config, place)
    return {"ms": round(1e3 * timing.median, 4), "iqr_ms": round(1e3 * timing.iqr, 4), "protocol": protocol(place)}


def _write(out: Path, about: Mapping[str, Any], rows: list[dict[str, Any]], metric: Metric) -> None:
    rows = sorted(rows, key=lambda row: row["params"])
    fronts = on_front(rows, metric)
    told = [row | {"pareto": front} for row, front in zip(rows, fronts, strict=True)]
    write_json(out / "family.json", {**about, "members": told})
    title = f"{about['task']} on {about['data']}, from {about['source']} ({about['method']})"
    write_table(rows, metric, out / "table.md", about=title)
    write_chart(rows, metric, out, title=title)


def _shown(rows: list[dict[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    rows = sorted(rows, key=lambda row: row["params"])
    return [
        {
            "size": row["size"],
            "asked": row["asked"],
            "params": row["params"],
            "flops": row["flops"],
            **({"ms": row["latency"]["ms"]} if row["latency"] else {}),
            metric.key: row["metrics"][metric.key],
            "pareto": front,
        }
        for row, front in zip(rows, on_front(rows, metric), strict=True)
    ]
