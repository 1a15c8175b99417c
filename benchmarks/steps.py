"""Steps of MAE pre-training to be timed: ours, as ``sweet pretrain`` runs them, and those of transformers' ViTMAE."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from tempfile import mkdtemp

import torch
from measure import Step, timed
from torch import nn

from sweet.data import onto
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import PretrainRecipe
from sweet.training.device import keep_memory, resolve_precision
from sweet.training.pretrain import Pretraining, parameter_groups, prepare
from sweet.training.state import TrainState

HEAD_DIM = 64
FIXED = ("template.lr_u=0", "template.lr_v=0")  # square U and V say nothing that the core does not say


@dataclass(frozen=True)
class Shape:
    """An encoder of ``depth`` blocks and ``width`` channels on grid x grid patches of 4 px, its decoder, a batch."""

    width: int = 384
    depth: int = 12
    grid: int = 8
    batch: int = 64
    decoder_width: int = 192
    decoder_depth: int = 2
    precision: str = "auto"

    def keys(self) -> list[str]:
        """Overrides of a recipe."""
        return [
            f"data.source=shapes:n={4 * self.batch},size={4 * self.grid}",
            f"data.img_size={4 * self.grid}",
            f"batch_size={self.batch}",
            f"model.depth={self.depth}",
            f"model.heads={self.width // HEAD_DIM}",
            f"model.head_dim={HEAD_DIM}",
            f"mae.decoder_width={self.decoder_width}",
            f"mae.decoder_depth={self.decoder_depth}",
            f"mae.decoder_head_dim={gcd(self.decoder_width, HEAD_DIM)}",
            "optim.compile=false",
            f"optim.precision={self.precision}",
            "workers=0",
        ]

    def constraint(self, name: str) -> Sequence[str]:
        """Overrides of one of our contestants."""
        depth, width = self.depth, self.width
        return {
            "dense": ("template.constraint=none",),
            "quarter": ("template.learn=factored", f"template.ranks=[{12 * depth},{width // 4},{width // 4}]"),
            "shared": ("template.learn=factored", f"template.ranks=[{4 * depth},{width},{width}]", *FIXED),
            "shared_uv": ("template.learn=factored", f"template.ranks=[{4 * depth},{width},{width}]"),
            "tiles": ("template.constraint=kronecker",),
        }[name]


def pretraining(shape: Shape, name: str) -> Pretraining:
    """What ``sweet pretrain`` would run."""
    recipe = load_recipe(PretrainRecipe, "micro", [*shape.keys(), *shape.constraint(name)])
    return prepare(recipe, Path(mkdtemp()))


def our_step(shape: Shape, name: str) -> Step:
    """One step of our loop."""
    run = pretraining(shape, name)
    recipe = run.recipe
    state = TrainState(run.model, parameter_groups(run.model, recipe), recipe, recipe.optim, run.accelerator, None, {})
    state.model.train()

    def step(number: int) -> None:
        state.micro_step(run.loss, *run.batches.at(number), number, 1e-3)

    return timed(step)


def transformers_step(shape: Shape) -> Step:
    """One step of a plain loop over transformers' ViTMAE: the same images, sizes, precision and optimiser."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    run = pretraining(shape, "dense")
    vit, device, optim = run.resolved.vit, run.accelerator.device, run.recipe.optim
    config = ViTMAEConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.width // HEAD_DIM,
        intermediate_size=4 * shape.width,
        image_size=vit.img_size,
        patch_size=vit.patch_size,
        decoder_hidden_size=shape.decoder_width,
        decoder_num_hidden_layers=shape.decoder_depth,
        decoder_num_attention_heads=shape.decoder_width // HEAD_DIM,
        decoder_intermediate_size=4 * shape.decoder_width,
        mask_ratio=run.resolved.mae.mask_ratio,
        norm_pix_loss=True,
    )
    model = ViTMAEForPreTraining(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=optim.betas, fused=True)
    bf16 = resolve_precision(shape.precision, device) == "bf16"

    def step(number: int) -> None:
        images, _ = run.batches.at(number)
        noise = onto(torch.rand(len(images), vit.patches), device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model(pixel_values=images, noise=noise).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step)


def make(shape: Shape, name: str) -> Step:
    """A contestant by name: ``transformers``, or one of :meth:`Shape.constraint`."""
    keep_memory()  # all gain from it
    warnings.filterwarnings("ignore")
    return transformers_step(shape) if name == "transformers" else our_step(shape, name)
