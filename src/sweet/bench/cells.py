"""The work behind a table, one job at a time: learn a source, measure a cell. Runs in its own process."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from sweet.recipe import FinetuneRecipe, PretrainRecipe

from .arms import Arm
from .protocols import Protocol
from .sources import cache_folder, digest

CHECKED = 2000  # test images that a model is checked on before it is fine-tuned


def finetune_recipe(protocol: Protocol, arm: Arm, recipe: PretrainRecipe, data: str, seed: int) -> FinetuneRecipe:
    told = json.loads(json.dumps(protocol.finetune))
    told["seed"] = seed
    if arm.lr is not None:
        told["lr"] = arm.lr
    told["device"] = recipe.device
    told["data"] |= {
        "source": data,
        "img_size": recipe.data.img_size,
        "mean": recipe.data.mean,
        "std": recipe.data.std,
        "interpolation": recipe.data.interpolation,
        "label_seed": 0,
    }
    return FinetuneRecipe.model_validate(told)


def told_of(recipe: FinetuneRecipe) -> dict[str, Any]:
    """A fine-tuning budget: what all seeds have in common, on any machine."""
    told = recipe.model_dump(exclude={"seed", "device", "workers", "checkpoint_every"})
    if not told["head"]:  # a key that came later leaves older cells comparable
        del told["head"]
    told["data"]["source"] = Path(told["data"]["source"]).name
    return told


def hash_of(recipe: FinetuneRecipe, layers: str) -> str:
    """Cells with the same one may be compared."""
    return digest([told_of(recipe), layers])


def switches_of(arm: Arm, layers: str) -> dict[str, Any]:
    """All switches of an arm: one rule for the layers of all methods of a table, unless an arm has its own."""
    from sweet.initialise import switches

    common = {"layers": layers} if "layers" in switches(arm.method) else {}
    return switches(arm.method, common | dict(arm.switches))


def start_worker(threads: int) -> None:
    """Begin a worker: its share of the cores, and its end when the bench ends, even by SIGKILL."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def measure(
    arm: Arm, arm_name: str, size: str, recipe: FinetuneRecipe, source: Path, layers: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Initialise, fine-tune and test one cell: (what describes the cell, this seed's run).

    Checkpoints lie in the cache until the result is returned, so that an interrupted cell goes on where it was.
    """
    from sweet.data import open_images, without_path
    from sweet.initialise import NAMES, images_used, initialise
    from sweet.models.store import load_source
    from sweet.models.vit import build_vit
    from sweet.tasks import task_class
    from sweet.template.sizes import Size
    from sweet.training.begin import environment
    from sweet.training.device import make_accelerator
    from sweet.training.finetune import finetune_model, open_splits
    from sweet.training.pretrain import data_info

    stored = load_source(source)
    target = Size.parse(size, stored.config.head_dim)
    config = stored.config.resized(target.depth, target.heads)
    keys = recipe.data
    given = switches_of(arm, layers)
    unlabelled = open_images(keys.source or "", keys.train_split) if NAMES[arm.method].images != 0 else None
    began = time.perf_counter()
    weights = initialise(arm.method, stored, target, data=unlabelled, seed=recipe.seed, device=recipe.device, **given)
    init_seconds = time.perf_counter() - began

    train_images, test_images = open_splits(recipe)
    classes = task_class("classify").classes_of(train_images)
    job, facts = task_class("classify")(classes, recipe), data_info(keys, classes)
    vit = build_vit(config, weights, num_classes=len(classes), seed=recipe.seed, drop_path_rate=recipe.drop_path)

    recipe_hash = hash_of(recipe, layers)
    run = cache_folder() / "cells" / f"{arm_name}-{size}-{recipe.seed}-{digest([recipe_hash, source.name])}"
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate, run)
    train_data, test_data = job.held(train_images, facts), job.held(test_images, facts)
    checked = check(vit, weights, stored, config, train_data, test_data, facts, accelerator)
    finished, metrics = finetune_model(
        vit,
        job,
        train_data,
        test_data,
        recipe,
        accelerator=accelerator,
        run=run,
        resume=True,
    )
    head = {
        "arm": arm_name,
        "method": arm.method,
        "switches": given,
        "size": size,
        "task": "classify",
        "source": source.name if arm.source else None,
        "data": without_path(keys.source or ""),
        "recipe_hash": recipe_hash,
        "recipe": told_of(recipe),
        "n_train": len(train_images),
        "test_images": metrics["images"],
        "classes": len(classes),
        "chance_top1": round(100 / len(classes), 3),
    }
    result = {
        "seed": recipe.seed,
        "top1": metrics["top1"],
        "top5": metrics["top5"],
        "test_loss": metrics["loss"],
        "train_loss": round(finished.loss, 5),
        "images_seen": finished.images,
        "steps": finished.steps,
        "seconds": round(finished.seconds, 1),
        "init_seconds": round(init_seconds, 3),
        "init_images": images_used(arm.method, None, unlabelled),
        **checked,
        "environment": environment(),
    }
    shutil.rmtree(run, ignore_errors=True)
    return head, result


def check(
    vit: Any,
    weights: dict[str, Any],
    source: Any,
    config: Any,
    train: Any,
    test: Any,
    facts: dict[str, Any],
    accelerator: Any,
) -> dict[str, float | None]:
    """What ``weights`` are worth before any fine-tuning, on the same test images and masks for every cell."""
    from sweet.data import shuffled
    from sweet.tasks.labelled import images_of
    from sweet.training.checks import BATCH, knn, mae_loss

    device = accelerator.device
    test = test.select(shuffled(len(test), 0)[:CHECKED])  # a set may be sorted by class
    with accelerator.autocast():
        loss = mae_loss(weights, config, source.mae, test, source.info["data"], device=device)
        near = knn(vit, *(images_of(part, facts, BATCH, device, 0) for part in (train, test)), device=device)
    return {"init_mae_loss": None if loss is None else round(loss, 5), "init_knn": round(near, 3)}


def write_model(source: Path, size: str, out: Path) -> Path:
    """A model folder of ``size`` made from a source, unless it is there."""
    from sweet.initialise.make import initialise_to
    from sweet.template.sizes import Size

    if not (out / "config.json").is_file():
        target = Size.parse(size)
        initialise_to(str(source), out, depth=target.depth, heads=target.heads)
    return out
