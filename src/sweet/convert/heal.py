"""Healing: a template of low ranks, made from a checkpoint, trains on for some steps as templates do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sweet.costs.flops import mae_image_flops, pretraining_flops, rebuild_macs
from sweet.data import ImageSource
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import MaskedAutoencoder, init_decoder
from sweet.storage.folders import StoredSource
from sweet.template.source import Source
from sweet.template.tucker import Tucker
from sweet.training.short_run import ShortRun, train_on

BATCH, WARMUP = 128, 0.1


def heal(stored: StoredSource, images: ImageSource, *, steps: int, lr: float, device: str, run: Path | None) -> Source:
    """The template after ``steps`` of masked autoencoding on ``images``; a checkpoint without a decoder gets a new one.

    Norm gains of the blocks stay as they are, folded to one. The loss curve is written to ``run``. Raises UserError for
    numbers out of range.
    """
    settings = ShortRun(steps, BATCH, lr, warmup=WARMUP, device=device, run=run)
    source, config = stored.source, stored.config
    core = source.core.expanded() if isinstance(source.core, Tucker) else source.core
    learned = "pred.weight" in source.decoder
    decoder = source.decoder if learned else init_decoder(config, stored.mae, torch.Generator().manual_seed(0))
    model = MaskedAutoencoder(replace(source, core=core, decoder=decoder), config, stored.mae)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("blocks.norm"))
    train_on(model, images, stored, settings)
    return model.detached()


def own_decoder(width: int) -> MaeConfig:
    """The decoder of a checkpoint that brings none: half as wide, two blocks, heads of 32 channels."""
    return MaeConfig(decoder_width=max(32, 32 * round(width / 64)), decoder_depth=2, decoder_head_dim=32)


def healing_cost(config: ViTConfig, mae: MaeConfig, ranks: Sequence[int], steps: int) -> tuple[int, float]:
    """Images and PFLOPs that a healing takes."""
    images, rebuild = steps * BATCH, rebuild_macs(config.depth, config.width, ranks)
    flops = pretraining_flops(mae_image_flops(config, mae), images=images, steps=steps, rebuild=rebuild)
    return images, round(flops / 1e15, 4)
