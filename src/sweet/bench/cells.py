"""The work behind a cell of a table: initial weights are made, fine-tuned and tested. Runs in a worker process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet.files import cache_folder, sha256
from sweet.recipes.loader import load_recipe, task_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe, without_path
from sweet.results.records import CellResult, Run
from sweet.storage.layout import TENSORS
from sweet.template.sizes import Size

from .protocol import Cell, Protocol
from .sources import HOW, TRAINING_VERSION, digest, settings_of
from .starts import start_of, switches_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sweet.data import ImageSource, Packed
    from sweet.data.identity import Identity
    from sweet.models.config import ViTConfig
    from sweet.storage.folders import StoredSource
    from sweet.storage.records import DataConfig
    from sweet.tasks.task import Task

CHECKED = 2000  # test images that a model is checked on before it is fine-tuned
POINTS = 60  # of a loss curve
NOT_COMPARED = HOW | {"seed": True}  # keys in which the runs of one cell may differ


def finetune_recipe(protocol: Protocol, cell: Cell, recipe: PretrainRecipe, data: str) -> FinetuneRecipe:
    """How a cell is fine-tuned on ``data``: the protocol's budget, the trial's and the arm's over it.

    Images are read as those of ``recipe``, by which the source was learned.
    """
    trial, arm, keys = cell.trial, protocol.arms[cell.arm], recipe.data
    classify = trial.task == "classify"
    overrides = [
        *(protocol.finetune if classify else ()),
        *trial.finetune,
        *(value for value in protocol.finetune if value.startswith("workers=")),  # how cells run, whatever the task
        # where settings are chosen: training images without a label take the place of the test images
        *([] if protocol.validation is None else [f"data.held_out={protocol.validation}"]),
        f"seed={cell.seed}",
        f"device={recipe.device}",
        f"data.source={data}",
        f"data.img_size={trial.img_size or keys.img_size}",
        f"data.mean={list(keys.mean)}",
        f"data.std={list(keys.std)}",
        f"data.interpolation={keys.interpolation}",
        "data.label_seed=0",
    ]
    overrides += [] if arm.lr is None else [f"lr={arm.lr}"]
    overrides += [] if arm.layer_decay is None else [f"optim.layer_decay={arm.layer_decay}"]
    return load_recipe(FinetuneRecipe, None if classify else task_recipe(trial.task), overrides)


def hash_of(recipe: FinetuneRecipe, layers: str) -> str:
    """Cells with the same one may be compared."""
    return digest([settings_of(recipe, exclude=NOT_COMPARED, changed=True), layers])


def run_folder(protocol: Protocol, cell: Cell, recipe: FinetuneRecipe, source: Path) -> Path:
    """Where a cell's checkpoints lie in the cache until its result is written."""
    switches = switches_of(protocol.arms[cell.arm], protocol.layers)
    about = digest([hash_of(recipe, protocol.layers), source.name, switches])
    column = cell.column.replace(" ", "-")
    return cache_folder() / "cells" / f"{cell.arm}-{column}-{cell.seed}-{about}"


def description(protocol: Protocol, cell: Cell, recipe: FinetuneRecipe) -> CellResult:
    """What can be said of a cell before it is measured."""
    arm, trial = protocol.arms[cell.arm], cell.trial
    return CellResult(
        protocol=protocol.name,
        arm=cell.arm,
        role=arm.role,
        method=arm.method,
        switches=switches_of(arm, protocol.layers),
        size=cell.size,
        task=trial.task,
        set=trial.data,
        patch_size=trial.patch_size,
        data=without_path(recipe.data.source or ""),
        recipe_hash=hash_of(recipe, protocol.layers),
        recipe=settings_of(recipe, exclude=NOT_COMPARED),
        runs=(),
    )


def measure(protocol: Protocol, cell: Cell, recipe: FinetuneRecipe, source: Path, data: str) -> tuple[CellResult, Run]:
    """Initialise, fine-tune and test one cell: (what describes the cell, this seed's run).

    ``source`` is the folder of its source, ``data`` are the images that an initialiser may look at. Checkpoints lie in
    :func:`run_folder`, so that an interrupted cell goes on where it was; who keeps the result clears them.
    """
    from sweet.storage.folders import load_source
    from sweet.training.finetune import finetune_model
    from sweet.training.run_folder import environment

    stored, folder = load_source(source), run_folder(protocol, cell, recipe, source)
    weights, start = start_of(protocol, cell, stored, source, data, recipe.device)
    prepared = prepare(cell, recipe, stored, weights)
    checked = check(prepared, weights, stored) if protocol.checks(cell.trial) else {}
    result, measured = finetune_model(
        prepared.network,
        prepared.task,
        prepared.train_data,
        prepared.test_data,
        recipe,
        accelerator=prepared.accelerator,
        run=folder,
        resume=True,
        images=prepared.images,
    )
    metrics = measured.to_dict()
    classes, metrics["test_loss"] = len(prepared.task.classes), metrics.pop("loss", None)
    head = description(protocol, cell, recipe).model_copy(
        update={
            "n_train": prepared.train_images,
            "test_set": prepared.test_images,
            "test_images": metrics.pop("images"),
            "classes": classes,
            "chance_top1": round(100 / classes, 3) if cell.trial.task == "classify" else None,
        }
    )
    run = {
        "seed": recipe.seed,
        **{name: value for name, value in metrics.items() if isinstance(value, int | float)},
        "train_loss": round(result.loss, 5),
        "images_seen": result.images,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        **start.model_dump(),
        **checked,
        **source_of_run(protocol, cell, source, stored),
        "code": TRAINING_VERSION,
        "precision": prepared.accelerator.mixed_precision,
        "curve": curve(folder),
        "environment": environment(),
    }
    return head, Run.model_validate(run)


def source_of_run(protocol: Protocol, cell: Cell, source: Path, stored: StoredSource) -> dict[str, str]:
    """Which weights a run starts from; nothing where its arm has no source."""
    if protocol.arms[cell.arm].source is None:
        return {}
    return {"source": source.name, "source_sha256": sha256(source / TENSORS[stored.record.kind])}


@dataclass(frozen=True)
class Prepared:
    """A network and the images that it is fine-tuned and tested on; ``vit`` is the backbone inside ``network``."""

    vit: nn.Module
    network: nn.Module
    config: ViTConfig
    task: Task
    data_config: DataConfig
    train_data: ImageSource | Packed
    test_data: ImageSource | Packed
    train_images: int
    test_images: int
    images: Mapping[str, Identity]
    accelerator: Any


def prepare(cell: Cell, recipe: FinetuneRecipe, stored: StoredSource, weights: Mapping[str, Tensor]) -> Prepared:
    """The network of a cell with ``weights`` and a new head, and its images."""
    from sweet.data.identity import identity
    from sweet.models.vit import build_vit
    from sweet.storage.records import DataConfig
    from sweet.tasks.registry import task_class
    from sweet.training.device import make_accelerator
    from sweet.training.finetune import open_splits
    from sweet.training.network import with_new_head

    make_task, trial = task_class(cell.trial.task), cell.trial
    train_images, test_images = open_splits(recipe)
    classes = make_task.classes_of(train_images)
    task, data_config = make_task(classes, recipe), DataConfig.of_recipe(recipe.data, classes)
    task.adapt(train_images, test_images)
    size = Size.parse(cell.size, stored.config.head_dim)
    config = stored.config.resized(size.depth, size.heads)
    options = dict(task.timm_options, drop_path_rate=recipe.drop_path, img_size=trial.img_size)
    vit = build_vit(config, weights, num_classes=task.outputs, seed=recipe.seed, patch_size=trial.patch_size, **options)
    return Prepared(
        vit=vit,
        network=with_new_head(vit, task, recipe.seed),
        config=config,
        task=task,
        data_config=data_config,
        accelerator=make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate),
        train_data=task.prepare_data(train_images, data_config),
        test_data=task.prepare_data(test_images, data_config),
        train_images=len(train_images),
        test_images=len(test_images),
        images={"train": identity(train_images), "test": identity(test_images)},
    )


def curve(run: Path) -> list[tuple[int, float]]:
    """At most :data:`POINTS` evenly spaced (step, training loss) of a run, the last one always."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    points = [(line["step"], round(line["loss"], 5)) for line in lines]
    every = -(-len(points) // POINTS)
    return points[::-1][::every][::-1]


def check(prepared: Prepared, weights: Mapping[str, Tensor], source: StoredSource) -> dict[str, float | None]:
    """What ``weights`` are worth before any fine-tuning, on the same test images and masks for every cell."""
    from sweet.data import shuffled
    from sweet.inference.checks import BATCH, knn, mae_loss
    from sweet.tasks.labelled import images_of
    from sweet.tasks.task import EvalSettings

    accelerator = prepared.accelerator
    device, train, test = accelerator.device, prepared.train_data, prepared.test_data
    test = test.select(shuffled(len(test), 0)[:CHECKED])  # a set may be sorted by class
    with accelerator.autocast():
        loss = mae_loss(weights, prepared.config, source.mae, test, source.data, device=device)
        settings = EvalSettings(prepared.data_config, device, BATCH)
        near = knn(prepared.vit, *(images_of(split, settings) for split in (train, test)), device=device)
    return {"init_mae_loss": None if loss is None else round(loss, 5), "init_knn": round(near, 3)}
