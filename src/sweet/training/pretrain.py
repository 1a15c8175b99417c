"""Learn a source: masked autoencoding under a constraint, with width-wise stochastic scaling (Eq. 6-8)."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweet.cards import source_card
from sweet.data import (
    Batches,
    ImageSource,
    Packed,
    eval_batches,
    onto,
    open_images,
    packed,
    shuffled,
    step_generator,
    without_path,
)
from sweet.errors import UserError
from sweet.files import TENSORS, write_folder
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.costs import mae_image_flops, pretraining_flops
from sweet.models.mae import MaskedAutoencoder, init_decoder, init_source
from sweet.models.moments import compute_order
from sweet.models.store import FORMAT, load_source, read_config, source_tensors
from sweet.plan import ranks_of, template_cost_of, tile_of, trained_ranks, vit_config
from sweet.recipe import DataKeys, PretrainRecipe, dump_recipe
from sweet.template.constraints import Kronecker
from sweet.template.hosvd import factored
from sweet.template.networks import Network, draw_depth, draw_widths
from sweet.template.target import Source, absorb
from sweet.template.tucker import Tucker
from sweet.version import VERSION

from .begin import begin
from .device import make_accelerator
from .loop import part_size, total_steps, train
from .supervised import SupervisedSource, known_labels, new_head, open_teacher

LARGE, FEW = 256, 1000  # a batch, and steps in all, of which a user with few images is told


def pretrain(recipe: PretrainRecipe, out: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Run a pre-training recipe; writes a template (or dense source) folder and returns its summary.

    A finished run with ``resume`` changes nothing. Raises UserError for bad input, before anything is written.
    """
    if resume and (out / "config.json").is_file():
        info = read_config(out, ("template", "dense"))
        if "training" not in info:
            raise UserError(f"--out {out}: was not made by a pre-training that could be resumed")
        return dict(info["training"], out=str(out), finished_before=True)
    if recipe.data.source is None:
        raise UserError(f"--data: recipe {recipe.name} names no images; give them, for example --data folder:PATH")
    config, mae = vit_config(recipe.model, recipe.data.img_size), MaeConfig(**recipe.mae.model_dump())
    source = _start(recipe, config, mae)
    images = open_images(recipe.data.source, recipe.data.train_split)
    if recipe.data.limit is not None:
        images = images.select(shuffled(len(images), recipe.seed)[: recipe.data.limit])
    model: MaskedAutoencoder
    if recipe.objective == "mae":
        model = MaskedAutoencoder(source, config, mae, apply=recipe.width.apply)
    else:
        images, teacher = known_labels(images, recipe), open_teacher(recipe, images.classes)
        head = new_head(source, len(images.classes or ()))
        model = SupervisedSource(head, config, mae, teacher, apply=recipe.width.apply)
    data = packed(images, config.img_size)
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate, out)

    part = part_size(recipe, recipe.optim.accumulate, accelerator.num_processes)
    batches = Batches(
        data,
        batch_size=part,
        seed=recipe.seed,
        augment="rrc",
        img_size=config.img_size,
        mean=recipe.data.mean,
        std=recipe.data.std,
        crop_scale=recipe.data.crop_scale,
        hflip=recipe.data.hflip,
        interpolation=recipe.data.interpolation,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
        workers=recipe.workers,
    )
    steps = total_steps(recipe, max(1, batches.steps_per_epoch // recipe.optim.accumulate))
    if accelerator.is_main_process and not quiet and recipe.batch_size > LARGE and steps < FEW:
        print(
            f"note: {len(images):,} images in batches of {recipe.batch_size:,} make {steps} steps in all, few to learn "
            f"from; smaller batches make more (batch_size=128 lr=1.5e-3)",
            file=sys.stderr,
        )
    if not recipe.model.norm_gain:
        for name, parameter in model.named_parameters():
            if name.startswith(("blocks.norm", "stem.norm")):
                parameter.requires_grad_(False)

    def loss_of(model: nn.Module, images: Tensor, labels: Any, micro: int) -> Tensor:
        networks = networks_at(recipe, micro // recipe.optim.accumulate, steps)
        loss: Tensor
        if recipe.objective == "supervised":
            loss = model(images, labels, networks)
            return loss
        noise = torch.rand(
            len(images),
            config.patches,
            generator=step_generator(recipe.seed, micro, accelerator.process_index, "mask"),
        )
        loss = model(images, onto(noise, images.device), networks)
        return loss

    if accelerator.is_main_process:
        begin(out, recipe, resume=resume)
    finished = train(
        model,
        parameter_groups(model, recipe),
        batches,
        loss_of,
        keys=recipe,
        optim=recipe.optim,
        accelerator=accelerator,
        run=out,
        resume=resume,
        quiet=quiet,
    )
    learned = factored(model.detached()) if recipe.template.turned else model.detached()
    whole = order_batches(data, recipe.data, config.img_size, recipe.template.order_images, recipe.workers)
    learned.order = compute_order(learned, config, whole, device=accelerator.device)
    learned = absorb(learned)
    rebuild = template_cost_of(recipe, config).rebuild_macs
    if isinstance(model, SupervisedSource):
        per_image = model.image_flops(len(images.classes or ()))
    else:
        drawn = (network for step in range(steps) for network in networks_at(recipe, step, steps))
        masked = recipe.width.apply == "mask"
        per_image = sum(mae_image_flops(config, mae, *network, masked=masked) for network in drawn) / steps
    flops = pretraining_flops(per_image, images=finished.images, steps=finished.steps, rebuild=rebuild)
    summary = {
        "steps": finished.steps,
        "images": finished.images,
        "loss": round(finished.loss, 5),
        "seconds": round(finished.seconds, 1),
        "img_per_s": round(finished.images / max(finished.seconds, 1e-9), 1),
        "pflops": round(flops / 1e15, 4),
        "data": without_path(recipe.data.source),
        "data_images": len(images),
        "device": str(accelerator.device),
        "precision": accelerator.mixed_precision,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    constraint = recipe.template.constraint
    kind = "dense" if constraint == "none" else "template"
    info = {
        "format": FORMAT,
        "sweet": VERSION,
        "kind": kind,
        "vit": config.to_dict(),
        "mae": asdict(mae) if recipe.objective == "mae" else None,
        "objective": recipe.objective,
        "constraint": constraint,
        "ranks": list(ranks_of(recipe)) if constraint == "tucker" else None,
        "absorbed": learned.order is not None and learned.order.absorbed,
        "width": {"mode": recipe.width.mode, "apply": recipe.width.apply},
        "data": data_info(recipe.data, images.classes),
        "training": summary,
    }
    if accelerator.is_main_process:
        tensors = (TENSORS[kind], source_tensors(learned))
        write_folder(out, tensors, info, dump_recipe(recipe), source_card(info, recipe))
    accelerator.end_training()
    return dict(summary, out=str(out))


def _start(recipe: PretrainRecipe, config: ViTConfig, mae: MaeConfig) -> Source:
    if recipe.init_from is None:
        return init_source(
            config,
            mae,
            constraint=recipe.template.trained,
            ranks=trained_ranks(recipe),
            tile=tile_of(recipe),
            generator=torch.Generator().manual_seed(recipe.seed),
        )
    stored = load_source(Path(recipe.init_from))
    if stored.config != config:
        raise UserError(f"init_from={recipe.init_from}: its encoder is {stored.config}, the recipe says {config}")
    if recipe.objective == "supervised":
        return stored.source
    if not stored.source.decoder:  # a converted checkpoint
        stored.source.decoder = init_decoder(config, mae, torch.Generator().manual_seed(recipe.seed))
    elif stored.mae != mae:
        raise UserError(f"init_from={recipe.init_from}: its decoder is {stored.mae}, the recipe says {mae}")
    if stored.info["constraint"] != recipe.template.trained:
        raise UserError(
            f"init_from={recipe.init_from}: its constraint is {stored.info['constraint']}, "
            f"the recipe says {recipe.template.trained}"
        )
    core = stored.source.core
    if isinstance(core, Tucker) and tuple(core.core.shape) != ranks_of(recipe):
        has = ",".join(map(str, core.core.shape))
        raise UserError(f"init_from={recipe.init_from}: its ranks are {has}; say template.ranks=[{has}]")
    if isinstance(core, Kronecker) and core.tile != tile_of(recipe):
        raise UserError(f"init_from={recipe.init_from}: its tile is {core.tile}; say template.tile={core.tile}")
    if isinstance(core, Tucker):
        stored.source.core = core.expanded()
    return stored.source


def networks_at(recipe: PretrainRecipe, step: int, steps: int) -> list[Network]:
    """Sub-networks of a step: the same on every process, a function of (seed, step)."""
    width, depth, blocks = recipe.width, recipe.depth, recipe.model.depth
    mode = width.mode if step >= width.start * steps else "none"
    widths = draw_widths(
        mode,
        recipe.model.heads,
        min_heads=width.min_heads,
        full_probability=width.full_probability,
        generator=step_generator(recipe.seed, step, 0, "widths"),
    )
    if depth.mode == "even" and step >= depth.start * steps:
        blocks = draw_depth(
            blocks,
            min_depth=depth.min_blocks,
            full_probability=depth.full_probability,
            generator=step_generator(recipe.seed, step, 0, "depths"),
        )
    return [Network(blocks, residual, inner) for residual, inner in widths]


def parameter_groups(model: MaskedAutoencoder, recipe: PretrainRecipe) -> list[dict[str, Any]]:
    """AdamW groups: decay on matrices only, not on scalers (methods 12.3); step sizes of X, U, V."""
    told = recipe.template
    scale = {"core.x": told.lr_x, "core.scalers": told.lr_x, "core.u": told.lr_u, "core.v": told.lr_v}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() > 1 and not name.startswith("blocks.") and not name.endswith(("token", "bias"))
            part = name.partition("/")[0]
            groups.setdefault((matrix and part not in scale, scale.get(part, 1.0)), []).append(parameter)
    decay = recipe.optim.weight_decay
    return [
        {"params": params, "weight_decay": decay if decays else 0.0, "lr_scale": factor}
        for (decays, factor), params in groups.items()
    ]


def order_batches(
    data: ImageSource | Packed, keys: DataKeys, img_size: int, images: int, workers: int
) -> Iterator[Tensor]:
    """The first ``images`` training images, whole and normalised, for the principal order."""
    seen = 0
    for batch, _ in eval_batches(
        data, batch_size=128, img_size=img_size, mean=keys.mean, std=keys.std, workers=workers
    ):
        yield batch[: images - seen]
        seen += len(batch)
        if seen >= images:
            return


def data_info(keys: DataKeys, classes: list[str] | None) -> dict[str, Any]:
    """What travels with every model so that it can be used on images."""
    return {
        "img_size": keys.img_size,
        "mean": list(keys.mean),
        "std": list(keys.std),
        "interpolation": keys.interpolation,
        "crop": "short side resized, centre cropped",
        "classes": classes,
    }
