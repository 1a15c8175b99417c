"""Learn a source: masked autoencoding under a constraint, with width-wise stochastic scaling (Eq. 6-8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sweet.console import warn
from sweet.costs.advice import advise, shrunk_text
from sweet.costs.flops import mae_image_flops, pretraining_flops
from sweet.costs.memory import machine_memory, memory_note, training_memory
from sweet.costs.plan import pretraining_cost, template_cost_of
from sweet.data import (
    Batches,
    ImageSource,
    Packed,
    Skips,
    a_few,
    onto,
    open_images,
    packed,
    readable_images,
    should_pack,
    shuffled,
    step_generator,
    whole_images,
    write_skipped,
)
from sweet.data.identity import identity
from sweet.errors import UserError
from sweet.models.mae import MaskedAutoencoder, init_decoder, init_source
from sweet.models.moments import compute_order
from sweet.models.source_module import WHOLE_STEP, Part
from sweet.recipes.loader import dump_recipe
from sweet.recipes.resolved import ResolvedRecipe, resolve
from sweet.recipes.schema import PretrainRecipe, without_path
from sweet.storage.cards import source_card
from sweet.storage.folders import load_source, source_tensors
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import DataConfig, FolderRecord, WidthRecord, read_record
from sweet.template.constraints import Kronecker
from sweet.template.hosvd import factored
from sweet.template.networks import Network, draw_depth, draw_widths
from sweet.template.source import Source
from sweet.template.target import absorb
from sweet.template.tucker import Tucker

from . import divided
from .compiling import decided
from .device import make_accelerator
from .loop import ParameterGroup, TrainResult, micro_batch_size, train
from .run_folder import begin
from .supervised import SupervisedSource, known_labels, new_head, open_teacher


def pretrain(recipe: PretrainRecipe, out: Path, *, resume: bool = False, quiet: bool = False) -> Mapping[str, object]:
    """Run a pre-training recipe; writes a template (or dense source) folder and returns its summary.

    A finished run with ``resume`` changes nothing. Raises UserError for bad input, before anything is written.
    """
    if resume and (out / "config.json").is_file():
        return finished_summary(out)
    run = prepare(recipe, out, quiet=quiet)
    if run.accelerator.is_main_process:
        begin(out, recipe, resume=resume)
        write_skipped(out, run.skipped)
        for line in dict.fromkeys(finding.text() for finding in run.images.findings() if finding.warn):
            warn(line)
    result = run.train(out, resume=resume, quiet=quiet)
    source = run.finish()
    record = run.record(result, source)
    if run.accelerator.is_main_process:
        tensors = (TENSORS[record.kind], source_tensors(source))
        write_folder(out, tensors, record, dump_recipe(recipe), source_card(record, recipe))
    run.accelerator.end_training()
    assert record.training is not None
    return dict(record.training.to_dict(), out=str(out))


def finished_summary(out: Path) -> Mapping[str, object]:
    """The summary of a run that is finished already. Raises UserError for any other folder."""
    record = read_record(out, ("template", "dense"))
    if record.training is None:
        raise UserError(f"--out {out}: was not made by a pre-training that could be resumed")
    return dict(record.training.to_dict(), out=str(out), finished_before=True)


@dataclass
class Pretraining:
    """Everything that one pre-training works on."""

    resolved: ResolvedRecipe
    images: ImageSource
    data: ImageSource | Packed
    model: MaskedAutoencoder | SupervisedSource
    batches: Batches
    accelerator: Accelerator
    skipped: list[str]  # a message for each image that was left out

    @property
    def recipe(self) -> PretrainRecipe:
        """What it is configured by."""
        return self.resolved.recipe

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.resolved.steps(len(self.data))

    def train(self, out: Path | None, *, resume: bool, quiet: bool) -> TrainResult:
        """All steps, with checkpoints in the run folder ``out``; None writes nothing."""
        cost = pretraining_cost(self.resolved, len(self.data))
        varies = not self.recipe.width.mode == self.recipe.depth.mode == "none"
        return train(
            self.model,
            parameter_groups(self.model, self.recipe),
            self.batches,
            self.loss,
            keys=self.recipe,
            optim=decided(self.recipe.optim, cost, self.accelerator.device, varies=varies),
            accelerator=self.accelerator,
            run=out,
            resume=resume,
            quiet=quiet,
            images={"train": identity(self.images)},
        )

    def loss(self, model: nn.Module, images: Tensor, labels: Any, micro: int) -> Tensor:
        """The loss of one micro-batch (B, C, H, W); masks and sub-networks are functions of the step."""
        recipe, vit = self.recipe, self.resolved.vit
        step, index = divmod(micro, recipe.optim.accumulate)
        networks = networks_at(recipe, step, self.steps)
        # divided parameters are there during one micro-batch only
        part = WHOLE_STEP if divided.wanted() else Part(index, recipe.optim.accumulate)
        loss: Tensor
        if recipe.objective == "supervised":
            loss = model(images, labels, networks, part)
            return loss
        # drawn for the batch of all processes, so that their number changes no mask
        whole, rank = len(images) * self.accelerator.num_processes, self.accelerator.process_index
        noise = torch.rand(whole, vit.patches, generator=step_generator(recipe.seed, micro, 0, "mask"))
        noise = noise[rank * len(images) : (rank + 1) * len(images)]
        loss = model(images, onto(noise, images.device), networks, part)
        return loss

    def finish(self) -> Source:
        """What was learned, as it is stored: factored where the recipe says so, with its principal order."""
        keys, vit = self.recipe.template, self.resolved.vit
        source = self.model.detached()
        source = factored(source) if keys.factored_at_end else source
        data, images = self.recipe.data, a_few(self.data, keys.order_images)
        if isinstance(images, ImageSource) and data.on_error == "skip":
            images, _ = readable_images(images, None)
        pixels = whole_images(images, data, batch_size=128, workers=self.recipe.workers)
        source.order = compute_order(source, vit, pixels, device=self.accelerator.device)
        return absorb(source)

    def flops(self, result: TrainResult) -> float:
        """Training FLOPs of the networks that were computed, rebuilding of their weights included."""
        recipe, resolved = self.recipe, self.resolved
        if isinstance(self.model, SupervisedSource):
            per_image = self.model.image_flops(len(self.images.classes or ()))
        else:
            drawn = (one for step in range(self.steps) for one in networks_at(recipe, step, self.steps))
            masked = recipe.width.apply == "mask"
            spent = sum(mae_image_flops(resolved.vit, resolved.mae, *one, masked=masked) for one in drawn)
            per_image = spent / self.steps
        rebuild = template_cost_of(resolved).rebuild_macs
        return pretraining_flops(per_image, images=result.images, steps=result.steps, rebuild=rebuild)

    def record(self, result: TrainResult, source: Source) -> FolderRecord:
        """``config.json`` of what was learned."""
        recipe, resolved = self.recipe, self.resolved
        constraint = recipe.template.constraint
        training = result.record(
            self.accelerator,
            img_per_s=round(result.images / max(result.seconds, 1e-9), 1),
            pflops=float(f"{self.flops(result) / 1e15:.4g}"),
            data=without_path(recipe.data.source or ""),
            data_images=len(self.images),
        )
        return FolderRecord(
            kind="dense" if constraint == "none" else "template",
            vit=resolved.vit,
            mae=resolved.mae if recipe.objective == "mae" else None,
            objective=recipe.objective,
            constraint=constraint,
            ranks=resolved.ranks if constraint == "tucker" else None,
            absorbed=source.order is not None and source.order.absorbed,
            width=WidthRecord(mode=recipe.width.mode, apply=recipe.width.apply),
            data=DataConfig.of_recipe(recipe.data, self.images.classes),
            training=training,
        )


def prepare(recipe: PretrainRecipe, out: Path, *, quiet: bool = True) -> Pretraining:
    """Source, images and accelerator of a recipe. Raises UserError for bad input; writes nothing.

    Unless ``quiet`` it says at once what does not fit.
    """
    if recipe.data.source is None:
        raise UserError(f"--data: recipe {recipe.name} names no images; give them, for example --data folder:PATH")
    resolved = resolve(recipe)
    source, vit, mae = initial_source(resolved), resolved.vit, resolved.mae
    images = open_images(recipe.data.source, recipe.data.train_split, pixels=recipe.data)
    if recipe.objective == "mae":
        images = images.pixels_only()
    if recipe.data.limit is not None:
        images = images.select(shuffled(len(images), recipe.seed)[: recipe.data.limit])
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate)
    divided.check(recipe.optim, accelerator.num_processes)
    micro_batch = micro_batch_size(recipe, recipe.optim.accumulate, accelerator.num_processes)
    if accelerator.is_main_process and not quiet:
        cost = pretraining_cost(resolved, len(images))
        steps, on_cpu = resolved.steps(len(images)), accelerator.device.type == "cpu"
        # a GPU without memory says so itself, a machine ends the program
        further = memory_note(training_memory(resolved, micro_batch), machine_memory()) if on_cpu else []
        further += shrunk_text(images.first_size, vit.img_size)
        advise(recipe, len(images), steps, cost, on_cpu=on_cpu, further=further)
    how = {"apply": recipe.width.apply, "layers": "first" if recipe.depth.mode == "first" else "even"}
    model: MaskedAutoencoder | SupervisedSource
    if recipe.objective == "mae":
        model = MaskedAutoencoder(source, vit, mae, **how)
    else:
        images, teacher = known_labels(images, recipe), open_teacher(recipe, images.classes)
        head = new_head(source, len(images.classes or ()))
        model = SupervisedSource(head, vit, teacher, **how)
    if not recipe.model.norm_gain:
        for name, parameter in model.named_parameters():
            if name.startswith(("blocks.norm", "stem.norm")):
                parameter.requires_grad_(False)
    skipped: list[str] = []
    if recipe.data.on_error == "skip" and should_pack(images, vit.img_size):
        images, skipped = readable_images(images, recipe.data)
    data = packed(images, vit.img_size)
    batches = Batches(
        data,
        batch_size=micro_batch,
        seed=recipe.seed,
        augment="rrc",
        img_size=vit.img_size,
        mean=recipe.data.mean,
        std=recipe.data.std,
        crop_scale=recipe.data.crop_scale,
        hflip=recipe.data.hflip,
        interpolation=recipe.data.interpolation,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
        workers=recipe.workers,
        skips=Skips.of(recipe.data, out, len(images), len(skipped)),
    )
    return Pretraining(resolved, images, data, model, batches, accelerator, skipped)


def initial_source(resolved: ResolvedRecipe) -> Source:
    """Random weights, or those of ``init_from``. Raises UserError where these have another shape than the recipe."""
    recipe, vit, mae = resolved.recipe, resolved.vit, resolved.mae
    fixed = recipe.template.lr_u == recipe.template.lr_v == 0
    if recipe.init_from is None:
        source = init_source(
            vit,
            mae,
            constraint=recipe.template.trained,
            ranks=resolved.learned_ranks,
            tile=resolved.tile,
            generator=torch.Generator().manual_seed(recipe.seed),
        )
        if fixed and isinstance(source.core, Tucker):
            source.core = source.core.contracted()  # square ones that do not learn: nothing to multiply at each step
        return source
    where = f"init_from={recipe.init_from}"
    stored = load_source(Path(recipe.init_from))
    if stored.config != vit:
        raise UserError(f"{where}: its encoder is {stored.config}, the recipe says {vit}")
    if recipe.objective == "mae" and not stored.source.decoder:  # a converted checkpoint
        stored.source.decoder = init_decoder(vit, mae, torch.Generator().manual_seed(recipe.seed))
    elif recipe.objective == "mae" and stored.mae != mae:
        raise UserError(f"{where}: its decoder is {stored.mae}, the recipe says {mae}")
    constraint = stored.record.constraint
    if constraint != recipe.template.trained:
        raise UserError(f"{where}: its constraint is {constraint}, the recipe says {recipe.template.trained}")
    core = stored.source.core
    if isinstance(core, Tucker) and tuple(core.core.shape) != resolved.ranks:
        ranks = ",".join(map(str, core.core.shape))
        raise UserError(f"{where}: its ranks are {ranks}; set template.ranks=[{ranks}]")
    if isinstance(core, Kronecker) and core.tile != resolved.tile:
        raise UserError(f"{where}: its tile is {core.tile}; set template.tile={core.tile}")
    if isinstance(core, Tucker):
        stored.source.core = core.contracted() if fixed else core.expanded()
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
    if depth.mode != "none" and step >= depth.start * steps:
        blocks = draw_depth(
            blocks,
            min_depth=depth.min_blocks,
            full_probability=depth.full_probability,
            generator=step_generator(recipe.seed, step, 0, "depths"),
        )
    return [Network(blocks, residual, inner) for residual, inner in widths]


def parameter_groups(model: nn.Module, recipe: PretrainRecipe) -> list[ParameterGroup]:
    """AdamW groups: decay on matrices only, not on scalers; step sizes of X, U, V."""
    keys = recipe.template
    scale = {"core.x": keys.lr_x, "core.scalers": keys.lr_x, "core.u": keys.lr_u, "core.v": keys.lr_v}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() > 1 and not name.startswith("blocks.") and not name.endswith(("token", "bias"))
            tensor = name.partition("/")[0]
            groups.setdefault((matrix and tensor not in scale, scale.get(tensor, 1.0)), []).append(parameter)
    decay = recipe.optim.weight_decay
    return [
        {"params": params, "weight_decay": decay if decays else 0.0, "lr_scale": factor}
        for (decays, factor), params in groups.items()
    ]
