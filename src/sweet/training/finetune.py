"""Fine-tune a built model for a task, evaluate it, write it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn

from sweet.cards import model_card
from sweet.data import ImageSource, Packed, balanced_subset, open_images, shuffled
from sweet.errors import UserError
from sweet.files import TENSORS, write_folder
from sweet.models.store import read_config
from sweet.recipe import FinetuneRecipe, dump_recipe
from sweet.tasks import Task, task_class

from .begin import begin
from .device import make_accelerator, use_plain_attention
from .loop import part_size, train
from .network import start_network
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
    kind = task_class(task)
    if recipe.data.source is None:
        raise UserError("--data: needed, for example --data folder:PATH")
    info = read_config(model, ("model",))
    recipe = with_model_data(recipe, info["data"], model)
    train_images, val_images = open_splits(recipe)
    classes = kind.classes_of(train_images)
    if kind.classes_of(val_images) != classes:
        raise UserError(f"--data {recipe.data.source}: {val_images.split} has other classes than {train_images.split}")
    job = kind(classes, recipe)
    job.adapt(train_images, val_images)
    facts = dict(data_info(recipe.data, classes), crop=job.crop)
    network = start_network(model, job, task, seed=recipe.seed, drop_path=recipe.drop_path)
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate, out)
    train_data, val_data = job.held(train_images, facts), job.held(val_images, facts)
    if accelerator.is_main_process:
        begin(out, recipe, resume=resume)
    finished, metrics = finetune_model(
        network, job, train_data, val_data, recipe, accelerator=accelerator, run=out, resume=resume, quiet=quiet
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
        head=job.head.model_dump(),
        data=facts,
        training=summary,
        metrics=metrics,
    )
    if accelerator.is_main_process:
        job.pictures(network, val_data, facts, metrics, out / "pictures", accelerator.device)
        state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
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
    network: nn.Module,
    job: Task,
    train_data: ImageSource | Packed,
    val_data: ImageSource | Packed,
    recipe: FinetuneRecipe,
    *,
    accelerator: Any,
    run: Path | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Train ``network`` in place and evaluate it; the averaged weights replace its own when ``ema`` is set."""
    batches = job.batches(
        train_data,
        recipe,
        batch_size=part_size(recipe, recipe.optim.accumulate, accelerator.num_processes),
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
    )
    network.to(accelerator.device)
    use_plain_attention(network, accelerator.device)
    ema = ModelEmaV3(network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    finished = train(
        network,
        parameter_groups(network, recipe),
        batches,
        job.loss,
        keys=recipe,
        optim=recipe.optim,
        accelerator=accelerator,
        run=run,
        resume=resume,
        quiet=quiet,
        ema=ema,
    )
    if ema is not None:
        network.load_state_dict(ema.module.state_dict())
    facts = data_info(recipe.data, job.classes)
    with accelerator.autocast():
        metrics = job.evaluate(network, val_data, facts, device=accelerator.device, workers=recipe.workers)
    return finished, metrics


def parameter_groups(network: nn.Module, recipe: FinetuneRecipe) -> list[dict[str, Any]]:
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
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        vit, weight_decay=decay, no_weight_decay_list=skip, layer_decay=recipe.optim.layer_decay
    )
    for matrices in (True, False):
        part = [parameter for parameter in around if (parameter.dim() > 1) == matrices and parameter.requires_grad]
        if part:
            groups.append({"params": part, "weight_decay": decay if matrices else 0.0})
    return groups
