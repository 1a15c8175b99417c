"""The work behind a cell of a table: a start is made, fine-tuned and tested. Runs in a worker process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweet.files import sha256
from sweet.recipes.loader import load_recipe, task_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.storage.layout import TENSORS
from sweet.template.sizes import Size

from .protocols import Cell, Protocol
from .sources import cache_folder, digest
from .starts import start_of, switches_of

CHECKED = 2000  # test images that a model is checked on before it is fine-tuned
POINTS = 60  # of a loss curve
# A recipe's key that is not one of these came after the first results; it counts only where it is not at its default.
FIRST = {
    "": "epochs max_steps batch_size lr data optim drop_path label_smoothing mixup cutmix ema probe",
    "data": "source train_split val_split img_size mean std crop_scale hflip interpolation limit labels label_seed "
    "augment",
    "optim": "weight_decay betas warmup min_lr clip precision accumulate layer_decay",
}
HOW: Any = {"seed": True, "device": True, "workers": True, "checkpoint_every": True, "optim": {"compile"}}


def finetune_recipe(told: Protocol, cell: Cell, recipe: PretrainRecipe, data: str) -> FinetuneRecipe:
    """How a cell is fine-tuned on ``data``: the protocol's budget, the trial's over it, and the source's own images."""
    arm = told.arms[cell.arm]
    task = cell.trial.task
    base = told.finetune if task == "classify" else _recipe_of(task)
    given = over(base, cell.trial.finetune)
    given |= {"seed": cell.seed, "device": recipe.device}
    if "workers" in told.finetune:  # how cells run, whatever the task
        given["workers"] = told.finetune["workers"]
    if arm.lr is not None:
        given["lr"] = arm.lr
    if arm.layer_decay is not None:
        given = over(given, {"optim": {"layer_decay": arm.layer_decay}})
    given["data"] = given.get("data", {}) | {
        "source": data,
        "img_size": cell.trial.img_size or recipe.data.img_size,
        "mean": recipe.data.mean,
        "std": recipe.data.std,
        "interpolation": recipe.data.interpolation,
        "label_seed": 0,
    }
    return FinetuneRecipe.model_validate(given)


def _recipe_of(task: str) -> dict[str, Any]:
    return load_recipe(FinetuneRecipe, task_recipe(task)).model_dump(mode="json", exclude_unset=True)


def over(under: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """``upper`` laid over ``under``, group by group."""
    result = json.loads(json.dumps(dict(under)))
    for key, value in upper.items():
        result[key] = over(result.get(key, {}), value) if isinstance(value, Mapping) else value
    return result


def told_of(recipe: FinetuneRecipe) -> dict[str, Any]:
    """A fine-tuning budget: what all seeds have in common, on any machine."""
    whole, changed = recipe.model_dump(exclude=HOW), recipe.model_dump(exclude=HOW, exclude_defaults=True)

    def known(values: dict[str, Any], group: str) -> dict[str, Any]:
        return {key: values[key] for key in FIRST[group].split()}

    told = over(known(whole, "") | {g: known(whole[g], g) for g in ("data", "optim")}, changed)
    told["data"]["source"] = Path(told["data"]["source"]).name
    return told


def hash_of(recipe: FinetuneRecipe, layers: str) -> str:
    """Cells with the same one may be compared."""
    return digest([told_of(recipe), layers])


def run_folder(told: Protocol, cell: Cell, recipe: FinetuneRecipe, source: Path) -> Path:
    """Where a cell's start and checkpoints lie in the cache until its result is written."""
    about = digest([hash_of(recipe, told.layers), source.name])
    column = cell.trial.column(cell.size).replace(" ", "-")
    return cache_folder() / "cells" / f"{cell.arm}-{column}-{cell.seed}-{about}"


def measure(
    told: Protocol, cell: Cell, recipe: FinetuneRecipe, source: Path, data: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start, fine-tune and test one cell: (what describes the cell, this seed's run). ``data`` are what a start sees.

    Checkpoints lie in the cache, so that an interrupted cell goes on where it was; who keeps the result clears them.
    """
    from sweet.models.vit import build_vit
    from sweet.recipes.schema import without_path
    from sweet.storage.folders import load_source
    from sweet.storage.records import DataConfig
    from sweet.tasks.registry import task_class
    from sweet.training.device import make_accelerator
    from sweet.training.finetune import finetune_model, open_splits
    from sweet.training.network import with_new_head
    from sweet.training.run_folder import environment

    arm, kind, keys = told.arms[cell.arm], task_class(cell.trial.task), recipe.data
    stored = load_source(source)
    weights, made = start_of(told, cell, stored, source, data, recipe.device)
    train_images, test_images = open_splits(recipe)
    classes = kind.classes_of(train_images)
    job, facts = kind(classes, recipe), DataConfig.of_recipe(keys, classes)
    job.adapt(train_images, test_images)
    size = Size.parse(cell.size, stored.config.head_dim)
    config = stored.config.resized(size.depth, size.heads)
    options = dict(job.timm_options, drop_path_rate=recipe.drop_path)
    pixels, patch = cell.trial.img_size, cell.trial.patch_size
    vit = build_vit(
        config, weights, num_classes=job.outputs, seed=recipe.seed, img_size=pixels, patch_size=patch, **options
    )
    network = with_new_head(vit, job, recipe.seed)

    run = run_folder(told, cell, recipe, source)
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate, run)
    train_data, test_data = job.prepare_data(train_images, facts), job.prepare_data(test_images, facts)
    checked: dict[str, float | None] = {}
    if told.checks(cell.trial):
        checked = check(vit, weights, stored, config, train_data, test_data, facts, accelerator)
    finished, measured = finetune_model(
        network, job, train_data, test_data, recipe, accelerator=accelerator, run=run, resume=True
    )
    metrics = measured.to_dict()
    metrics["test_loss"] = metrics.pop("loss", None)
    head = {
        "arm": cell.arm,
        "method": arm.method,
        "switches": switches_of(arm, told.layers),
        "size": cell.size,
        "task": cell.trial.task,
        **({"set": cell.trial.data} if cell.trial.data else {}),
        **({"patch_size": patch} if patch else {}),
        "source": source.name if arm.source else None,
        "data": without_path(keys.source or ""),
        "recipe_hash": hash_of(recipe, told.layers),
        "recipe": told_of(recipe),
        "n_train": len(train_images),
        "test_set": len(test_images),
        "test_images": metrics.pop("images"),
        "classes": len(classes),
        **({"chance_top1": round(100 / len(classes), 3)} if cell.trial.task == "classify" else {}),
    }
    result = {
        "seed": recipe.seed,
        **{name: value for name, value in metrics.items() if isinstance(value, int | float)},
        "train_loss": round(finished.loss, 5),
        "images_seen": finished.images,
        "steps": finished.steps,
        "seconds": round(finished.seconds, 1),
        **made,
        **checked,
        **({"source_sha256": sha256(source / TENSORS[stored.record.kind])} if arm.source else {}),
        "curve": curve(run),
        "environment": environment(),
    }
    return head, result


def curve(run: Path) -> list[list[float]]:
    """At most :data:`POINTS` evenly spaced [step, training loss] of a run, the last one always."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    points = [[told["step"], round(told["loss"], 5)] for told in map(json.loads, lines) if "loss" in told]
    every = -(-len(points) // POINTS)
    return points[::-1][::every][::-1]


def check(
    vit: Any,
    weights: dict[str, Any],
    source: Any,
    config: Any,
    train: Any,
    test: Any,
    facts: Any,
    accelerator: Any,
) -> dict[str, float | None]:
    """What ``weights`` are worth before any fine-tuning, on the same test images and masks for every cell."""
    from sweet.data import shuffled
    from sweet.inference.checks import BATCH, knn, mae_loss
    from sweet.tasks.labelled import images_of
    from sweet.tasks.task import EvalSettings

    device = accelerator.device
    test = test.select(shuffled(len(test), 0)[:CHECKED])  # a set may be sorted by class
    with accelerator.autocast():
        loss = mae_loss(weights, config, source.mae, test, source.data, device=device)
        settings = EvalSettings(facts, device, BATCH)
        near = knn(vit, *(images_of(part, settings) for part in (train, test)), device=device)
    return {"init_mae_loss": None if loss is None else round(loss, 5), "init_knn": round(near, 3)}
