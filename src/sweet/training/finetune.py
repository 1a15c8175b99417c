"""Fine-tune a built model for a task, evaluate it, write it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn

from sweet.console import say, warn
from sweet.costs.advice import advise
from sweet.costs.memory import finetuning_memory, machine_memory, memory_note
from sweet.data import (
    Finding,
    ImageSource,
    Packed,
    Skips,
    balanced_subset,
    learned_and_held,
    open_images,
    readable_images,
    should_pack,
    shuffled,
    write_skipped,
)
from sweet.data.identity import Identity, identity
from sweet.errors import UserError
from sweet.files import sha256
from sweet.models.config import ViTConfig
from sweet.recipes.loader import dump_recipe
from sweet.recipes.resolved import total_steps
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.cards import model_card
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import DataConfig, FolderRecord, read_record
from sweet.tasks.registry import ENTRIES, Metric, task_class
from sweet.tasks.task import EvalSettings, Metrics, Task, TrainSettings

from . import divided
from .compiling import decided
from .device import choose_attention, make_accelerator
from .inherited import with_model_data
from .loop import ParameterGroup, TrainResult, micro_batch_size, train
from .network import start_network
from .run_folder import begin
from .validation import Validation, steps_between

GENTLE = 1e-4  # a rate at which a checkpoint that is fine-tuned whole keeps what it knows


def finetune(
    model: Path,
    recipe: FinetuneRecipe,
    out: Path,
    *,
    task: str = "classify",
    resume: bool = False,
    quiet: bool = False,
    advises: bool = True,
) -> Mapping[str, object]:
    """Fine-tune the model folder ``model`` and write a model folder; returns what :func:`summary` says of it.

    It is validated while it is trained, as ``val_every`` says, and what is written is the best that was seen. With
    ``advises``, and unless it is ``quiet``, it says at once what does not fit. A finished run with ``resume`` changes
    nothing. Raises UserError for bad input, before anything is written.
    """
    if resume and (out / "config.json").is_file():
        before = read_record(out, ("model",))
        if before.metrics is None:
            raise UserError(f"--out {out}: holds a model that was not fine-tuned, nothing to resume")
        return dict(summary(before), out=str(out), finished_before=True)
    run = prepare(model, recipe, task, quiet=quiet or not advises)
    accelerator = run.accelerator
    cost = training_flops(run.base.vit, run.recipe, len(run.train_data))
    optim = decided(run.recipe.optim, cost, accelerator.device)
    if accelerator.is_main_process:
        begin(out, run.recipe, resume=resume, task=task, model=sha256(model / TENSORS["model"]))
        write_skipped(out, run.skipped)
        for line in dict.fromkeys(finding.text() for finding in run.findings if finding.warn):
            warn(line)
    result, metrics = finetune_model(
        run.network,
        run.task,
        run.train_data,
        run.val_data,
        run.recipe.model_copy(update={"optim": optim}),
        accelerator=accelerator,
        run=out,
        resume=resume,
        quiet=quiet,
        images=run.images,
        skips=Skips.of(run.recipe.data, out, len(run.train_data), len(run.skipped)),
        metric=ENTRIES[task].metrics[0],
    )
    record = run.base.model_copy(
        update={
            "task": task,
            "head": run.task.head.model_dump(),
            "data": run.task.settled(run.data_config, metrics),
            "training": result.record(accelerator),
            "metrics": metrics.to_dict(),
        }
    )
    if accelerator.is_main_process:
        state = {name: value.detach().cpu() for name, value in run.network.state_dict().items()}
        card = model_card(record, run.recipe.model_dump())
        write_folder(out, (TENSORS["model"], state), record, dump_recipe(run.recipe), card)
        draw(run, metrics, out / "pictures", quiet=quiet)
    accelerator.end_training()
    return dict(summary(record), out=str(out))


def summary(record: FolderRecord) -> dict[str, object]:
    """The validation metrics of a fine-tuned model, the task's own first, and what it took, under ``training``."""
    metrics = dict(record.metrics or {})
    first = [metric.key for metric in ENTRIES[record.task or "classify"].metrics if metric.key in metrics]
    ordered: dict[str, object] = {key: metrics.pop(key) for key in first}
    if "loss" in metrics:
        ordered["val_loss"] = metrics.pop("loss")  # of the validation images
    return ordered | metrics | {"training": record.training.to_dict() if record.training else None}


@dataclass
class Finetuning:
    """Everything that one fine-tuning works on; ``base`` is the record of the model that it starts from."""

    base: FolderRecord
    recipe: FinetuneRecipe
    task: Task
    data_config: DataConfig
    network: nn.Module
    train_data: ImageSource | Packed
    val_data: ImageSource | Packed
    images: Mapping[str, Identity]
    accelerator: Accelerator
    findings: list[Finding]
    skipped: list[str]  # a message for each image that was left out


def prepare(model: Path, recipe: FinetuneRecipe, task_name: str, *, quiet: bool = True) -> Finetuning:
    """Network, images and accelerator of a recipe. Raises UserError for bad input; writes nothing.

    Unless ``quiet`` it says at once what does not fit.
    """
    make_task = task_class(task_name)
    if recipe.data.source is None:
        raise UserError("--data: needed, for example --data folder:PATH")
    base = read_record(model, ("model",))
    recipe = with_model_data(recipe, base.data, model, make_task)
    train_images, val_images = open_splits(recipe)
    classes = make_task.classes_of(train_images)
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate)
    micro_batch = micro_batch_size(recipe, recipe.optim.accumulate, accelerator.num_processes)
    check_pairs(recipe, micro_batch, accelerator.num_processes)
    divided.check(recipe.optim, accelerator.num_processes, recipe.ema)
    skipped: list[str] = []
    if recipe.data.on_error == "skip":  # a large set is read as it is learned from
        val_images, skipped = readable_images(val_images, recipe.data)
        if make_task.reads_all or should_pack(train_images, recipe.data.img_size):
            train_images, more = readable_images(train_images, recipe.data)
            skipped += more
    if make_task.classes_of(val_images) != classes and not make_task.relabel(val_images, classes):
        raise UserError(f"--data {recipe.data.source}: {val_images.split} has other classes than {train_images.split}")
    task = make_task(classes, recipe)
    task.adapt(train_images, val_images)
    findings = [odd for images in (train_images, val_images) for odd in (*images.findings(), *task.findings(images))]
    data_config = DataConfig.of_recipe(recipe.data, classes, task.crop)
    network = start_network(model, task, task_name, seed=recipe.seed, drop_path=recipe.drop_path)
    if accelerator.is_main_process and not quiet:
        cost, on_cpu = training_flops(base.vit, recipe, len(train_images)), accelerator.device.type == "cpu"
        needed, there = finetuning_memory(base.vit, micro_batch), machine_memory() if on_cpu else None
        further = [*forgetting(base, recipe), *memory_note(needed, there)]
        advise(recipe, len(train_images), steps_of(recipe, len(train_images)), cost, on_cpu=on_cpu, further=further)
    train_data, val_data = (task.prepare_data(images, data_config) for images in (train_images, val_images))
    if val_images.drawn_text and accelerator.is_main_process and not quiet:
        say(f"note: {val_images.drawn_text}")
    images = {"train": identity(train_images), "val": identity(val_images)}
    return Finetuning(
        base, recipe, task, data_config, network, train_data, val_data, images, accelerator, findings, skipped
    )


def forgetting(base: FolderRecord, recipe: FinetuneRecipe) -> list[str]:
    """That a rate for small models trained from a template is too high for a checkpoint's own weights, all of them."""
    made = base.made
    if made is None or made.origin is None or made.source_size != str(base.vit.size) or recipe.lr <= GENTLE:
        return []
    return [
        f"these are all weights of {made.origin.name}, and lr={recipe.lr:g} unlearns what they know; gentler is "
        f"lr={GENTLE:g} optim.layer_decay=0.75"
    ]


def steps_of(recipe: FinetuneRecipe, images: int) -> int:
    """Optimiser steps on so many images."""
    return total_steps(recipe, max(1, images // recipe.batch_size))


def training_flops(vit: ViTConfig, recipe: FinetuneRecipe, images: int) -> float:
    """FLOPs of the ViT in a fine-tuning on so many images, without what the task puts around it."""
    return 3.0 * steps_of(recipe, images) * recipe.batch_size * vit.cost().flops(attention=True)


def check_pairs(recipe: FinetuneRecipe, images: int, world: int) -> None:
    """Raises UserError where each of ``world`` processes has an odd number of ``images`` at a time to mix in pairs."""
    if (recipe.mixup or recipe.cutmix) and images % 2:
        raise UserError(
            f"batch_size={recipe.batch_size}: {images} images at a time in each of {world} processes cannot be mixed "
            "in pairs (mixup, cutmix)"
        )


def draw(run: Finetuning, metrics: Metrics, out: Path, *, quiet: bool) -> None:
    """The pictures of a task into the folder ``out``; what cannot be drawn is a warning, for the model is written."""
    settings = EvalSettings(run.data_config, run.accelerator.device, shows=None if quiet else "pictures")
    try:
        run.task.pictures(run.network, run.val_data, settings, metrics, out)
    except Exception as problem:  # of a library that draws: anything
        warn(f"no pictures in {out}: {type(problem).__name__}: {problem}")


def open_splits(recipe: FinetuneRecipe) -> tuple[ImageSource, ImageSource]:
    """Training images (all, or the labelled subset) and validation images of a recipe.

    Those that are held out are drawn from the training images beside the labelled ones.
    """
    keys = recipe.data
    assert keys.source is not None
    train_images = open_images(keys.source, keys.train_split, pixels=keys)
    if keys.limit is not None:
        train_images = train_images.select(shuffled(len(train_images), keys.label_seed)[: keys.limit])
    labels = train_images.labels
    for key, count in (("labels", keys.labels), ("held_out", keys.held_out)):
        if count is not None and labels is None:
            raise UserError(f"data.{key}={count}: {keys.source} has no class labels")
    if keys.held_out is None:
        if keys.labels is not None:
            train_images = train_images.select(balanced_subset(labels or (), keys.labels, keys.label_seed))
        val_images = open_images(keys.source, keys.val_split or "val", pixels=keys)
        if keys.val_split is None and val_images.split == train_images.split:
            problem = f"data.train_split={keys.train_split}: {keys.source} has no other split to validate on"
            raise UserError(f"{problem}; set data.val_split or data.held_out")
        return train_images, val_images
    learned, held = learned_and_held(labels or (), keys.labels, keys.held_out, keys.label_seed)
    return train_images.select(learned), train_images.select(held)


def finetune_model(
    network: nn.Module,
    task: Task,
    train_data: ImageSource | Packed,
    val_data: ImageSource | Packed,
    recipe: FinetuneRecipe,
    *,
    accelerator: Accelerator,
    run: Path | None = None,
    resume: bool = False,
    quiet: bool = True,
    images: Mapping[str, Identity] | None = None,
    skips: Skips | None = None,
    metric: Metric | None = None,
) -> tuple[TrainResult, Metrics]:
    """Train ``network`` in place and evaluate it; the averaged weights replace its own when ``ema`` is set.

    ``images``: see :func:`sweet.training.loop.train`. ``skips``: which training images may be left out. With a
    ``metric`` it is evaluated while it is trained, and ends as the best by it that was seen.
    """
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    micro_batch = micro_batch_size(recipe, recipe.optim.accumulate, world)
    batches = task.batches(train_data, TrainSettings(recipe, micro_batch, rank, world, device, skips))
    if not quiet and accelerator.is_main_process:
        for note in task.notes:
            say(note)
    network.to(accelerator.device)
    choose_attention(network, accelerator)
    ema = ModelEmaV3(network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    measure = partial(
        measured, task, network if ema is None else ema.module, val_data, recipe, accelerator, metric, quiet=quiet
    )
    per_epoch = max(1, batches.steps_per_epoch // recipe.optim.accumulate)
    every = 0 if metric is None else steps_between(recipe, task, per_epoch, len(train_data), len(val_data))
    result = train(
        network,
        parameter_groups(network, recipe),
        batches,
        task.loss,
        keys=recipe,
        optim=recipe.optim,
        accelerator=accelerator,
        run=run,
        resume=resume,
        quiet=quiet,
        ema=ema,
        images=images,
        validation=Validation(measure, metric, every, per_epoch, recipe.patience) if metric and every else None,
    )
    metrics = measure() if result.metrics is None else result.metrics
    if ema is not None:
        network.load_state_dict(ema.module.state_dict())
    return result, metrics


def measured(
    task: Task,
    network: nn.Module,
    val_data: ImageSource | Packed,
    recipe: FinetuneRecipe,
    accelerator: Accelerator,
    metric: Metric | None,
    *,
    quiet: bool,
) -> Metrics:
    """An evaluation; not compiled where a ``metric`` validates a training: each batch size would be compiled apart."""
    shows = None if quiet or not accelerator.is_main_process else "validation"
    data_config = DataConfig.of_recipe(recipe.data, task.classes)
    settings = EvalSettings(data_config, accelerator.device, workers=recipe.workers, shows=shows)
    eager = nullcontext() if metric is None else torch.compiler.set_stance("force_eager")
    with accelerator.autocast(), eager:
        return task.evaluate(network, val_data, settings)


def parameter_groups(network: nn.Module, recipe: FinetuneRecipe) -> list[ParameterGroup]:
    """timm's groups: no decay on vectors, learning rates that fall from the head down by ``layer_decay``.

    What a task puts around the ViT learns at the full rate.
    """
    vit: Any = getattr(network, "vit", network)
    inside = {id(parameter) for parameter in vit.parameters()}
    around = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    if recipe.probe:
        for name, parameter in vit.named_parameters():
            parameter.requires_grad_(name.startswith("head."))
    skip = vit.no_weight_decay() if hasattr(vit, "no_weight_decay") else ()
    decay = recipe.optim.weight_decay
    groups: list[ParameterGroup] = param_groups_layer_decay(
        vit, weight_decay=decay, no_weight_decay_list=skip, layer_decay=recipe.optim.layer_decay
    )
    for matrices in (True, False):
        params = [p for p in around if (p.dim() > 1) == matrices and p.requires_grad]
        if params:
            groups.append({"params": params, "weight_decay": decay if matrices else 0.0})
    return groups
