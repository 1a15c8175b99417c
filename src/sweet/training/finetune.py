"""Fine-tune a built model for a task, evaluate it, write it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from sweet.cards import model_card
from sweet.data import Batches, ImageSource, Packed, balanced_subset, eval_batches, open_images, packed, shuffled
from sweet.errors import UserError
from sweet.files import TENSORS, write_folder
from sweet.models.store import load_model, read_config
from sweet.recipe import FinetuneRecipe, dump_recipe
from sweet.tasks import TASKS

from .begin import begin
from .device import make_accelerator, use_plain_attention
from .loop import part_size, train
from .pretrain import data_info


def finetune(
    model: Path,
    recipe: FinetuneRecipe,
    out: Path,
    *,
    task: str = "classify",
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fine-tune the model folder ``model`` and write a model folder; returns metrics on the validation split.

    A finished run with ``resume`` changes nothing. Raises UserError for bad input, before anything is written.
    """
    if resume and (out / "config.json").is_file():
        before = read_config(out, ("model",))
        if "metrics" not in before:
            raise UserError(f"--out {out}: holds a model that was not fine-tuned, nothing to resume")
        return dict(before["metrics"], out=str(out), finished_before=True)
    if task not in TASKS:
        raise UserError(f"--task {task}: unknown, expected one of {', '.join(TASKS)}")
    if recipe.data.source is None:
        raise UserError("--data: needed, for example --data folder:PATH")
    info = read_config(model, ("model",))
    recipe = with_model_data(recipe, info["data"], model)
    train_images, val_images = open_splits(recipe)
    classes = TASKS[task].classes_of(train_images)
    if TASKS[task].classes_of(val_images) != classes:
        raise UserError(f"--data {recipe.data.source}: {val_images.split} has other classes than {train_images.split}")
    vit, info = load_model(model, num_classes=len(classes), drop_path_rate=recipe.drop_path, seed=recipe.seed)
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate, out)
    job = TASKS[task](classes, recipe)
    train_data, val_data = packed(train_images, recipe.data.img_size), packed(val_images, recipe.data.img_size)
    if accelerator.is_main_process:
        begin(out, recipe, resume=resume)
    finished, metrics = finetune_model(
        vit, job, train_data, val_data, recipe, accelerator=accelerator, run=out, resume=resume, quiet=quiet
    )
    summary = {
        "steps": finished.steps,
        "images": finished.images,
        "loss": round(finished.loss, 5),
        "seconds": round(finished.seconds, 1),
        "device": str(accelerator.device),
        "precision": accelerator.mixed_precision,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    written = dict(
        info,
        task=task,
        data=data_info(recipe.data, classes),
        training=summary,
        metrics=metrics,
    )
    if accelerator.is_main_process:
        state = {name: value.detach().cpu() for name, value in vit.state_dict().items()}
        card = model_card(written, recipe.model_dump())
        write_folder(out, (TENSORS["model"], state), written, dump_recipe(recipe), card)
    accelerator.end_training()
    return dict(metrics, **summary, out=str(out))


def with_model_data(recipe: FinetuneRecipe, info: dict[str, Any], model: Path) -> FinetuneRecipe:
    """The recipe with the model's own size, mean, std and interpolation wherever it does not set them.

    Raises UserError when it sets another image size than the model takes.
    """
    told = recipe.data.model_fields_set
    if "img_size" in told and recipe.data.img_size != info["img_size"]:
        raise UserError(
            f"data.img_size={recipe.data.img_size}: the model {model} takes {info['img_size']} px; "
            f"make one with sweet init --img-size {recipe.data.img_size}"
        )
    stored = dict(info, mean=tuple(info["mean"]), std=tuple(info["std"]))
    taken = {key: stored[key] for key in ("img_size", "mean", "std", "interpolation") if key not in told}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=taken)})


def open_splits(recipe: FinetuneRecipe) -> tuple[ImageSource, ImageSource]:
    """Training images (all, or the labelled subset) and validation images of a recipe."""
    keys = recipe.data
    assert keys.source is not None
    train_images = open_images(keys.source, keys.train_split)
    val_images = open_images(keys.source, keys.val_split or "val")
    if keys.limit is not None:
        train_images = train_images.select(shuffled(len(train_images), keys.label_seed)[: keys.limit])
    if keys.labels is not None:
        if train_images.labels is None:
            raise UserError(f"data.labels={keys.labels}: {keys.source} has no class labels")
        train_images = train_images.select(balanced_subset(train_images.labels, keys.labels, keys.label_seed))
    return train_images, val_images


def finetune_model(
    vit: nn.Module,
    job: Any,
    train_data: ImageSource | Packed,
    val_data: ImageSource | Packed,
    recipe: FinetuneRecipe,
    *,
    accelerator: Any,
    run: Path | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Train ``vit`` in place and evaluate it; the averaged weights replace its own when ``ema`` is set."""
    keys = recipe.data
    batches = Batches(
        train_data,
        batch_size=part_size(recipe, recipe.optim.accumulate, accelerator.num_processes),
        seed=recipe.seed,
        augment=keys.augment,
        img_size=keys.img_size,
        mean=keys.mean,
        std=keys.std,
        crop_scale=keys.crop_scale,
        hflip=keys.hflip,
        interpolation=keys.interpolation,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
        workers=recipe.workers,
    )
    vit.to(accelerator.device)
    use_plain_attention(vit, accelerator.device)
    ema = ModelEmaV3(vit, decay=recipe.ema, use_warmup=True) if recipe.ema else None

    def loss_of(model: nn.Module, images: Tensor, labels: Any, micro: int) -> Tensor:
        loss: Tensor = job.loss(model, images, labels, micro)
        return loss

    finished = train(
        vit,
        parameter_groups(vit, recipe),
        batches,
        loss_of,
        keys=recipe,
        optim=recipe.optim,
        accelerator=accelerator,
        run=run,
        resume=resume,
        quiet=quiet,
        ema=ema,
    )
    if ema is not None:
        vit.load_state_dict(ema.module.state_dict())
    with accelerator.autocast():
        metrics = job.evaluate(vit, evaluation(val_data, recipe, accelerator.device))
    return finished, metrics


def parameter_groups(vit: Any, recipe: FinetuneRecipe) -> list[dict[str, Any]]:
    """timm's groups: no decay on vectors, learning rates that fall from the head down by ``layer_decay``."""
    if recipe.probe:
        for name, parameter in vit.named_parameters():
            parameter.requires_grad_(name.startswith("head."))
    skip = vit.no_weight_decay() if hasattr(vit, "no_weight_decay") else ()
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        vit,
        weight_decay=recipe.optim.weight_decay,
        no_weight_decay_list=skip,
        layer_decay=recipe.optim.layer_decay,
    )
    return groups


def evaluation(data: ImageSource | Packed, recipe: FinetuneRecipe, device: torch.device) -> Any:
    keys = recipe.data
    return eval_batches(
        data,
        batch_size=256,
        img_size=keys.img_size,
        mean=keys.mean,
        std=keys.std,
        device=device,
        workers=recipe.workers,
    )
