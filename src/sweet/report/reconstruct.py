"""What networks of several sizes, sliced from one source, make of images with hidden patches (the paper's Figure 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sweet.data import eval_batches, open_images, packed, shuffled, step_generator
from sweet.models.forward import patchify
from sweet.models.mae import reconstruct, sincos
from sweet.models.store import StoredSource
from sweet.template.target import target_weights
from sweet.training.checks import mae_loss

SHOWN, MEASURED = 6, 512  # images in the picture, and for the loss


@dataclass(frozen=True)
class Reconstructions:
    """A contact sheet, a column for each image and a row for each of ``rows``; the MAE loss of each size."""

    picture: Image.Image
    rows: list[str]
    losses: dict[str, float]
    images: int  # that the losses were measured on


@torch.no_grad()
def reconstructions(stored: StoredSource, data: str) -> Reconstructions | None:
    """Pictures and losses on the validation split of ``data``, the same masks for all sizes; None without a decoder.

    Raises UserError for bad ``data``.
    """
    config, mae, facts = stored.config, stored.mae, stored.info["data"]
    if not stored.source.decoder:
        return None
    source = open_images(data, "val")
    images = packed(source.select(shuffled(len(source), 0)[:MEASURED]), config.img_size)
    batches = eval_batches(images, batch_size=SHOWN, img_size=config.img_size, mean=facts["mean"], std=facts["std"])
    pixels, _ = next(iter(batches))
    noise = torch.rand(len(pixels), config.patches, generator=step_generator(0, 0, 0, "pictures"))
    positions = sincos(config.grid, mae.decoder_width)
    order = "principal" if stored.source.order is not None else "prefix"
    rows, losses = {"image": pixels}, {}
    for depth, heads in sizes_shown(config.depth, config.heads):
        shape = config.resized(depth, heads)
        weights = target_weights(stored.source, depth, shape.width, order=order)
        made = reconstruct(weights, pixels, noise, shape, mae, positions)
        if "visible" not in rows:
            grey = torch.zeros_like(made.prediction, dtype=torch.float)
            rows["visible"] = filled(pixels, made.masked, grey, config.patch_size)
        predicted = unnormalised(pixels, made.masked, made.prediction, config.patch_size, mae.norm_pix)
        rows[str(shape.size)] = filled(pixels, made.masked, predicted, config.patch_size)
        loss = mae_loss(weights, shape, mae, images, facts)
        if loss is not None:
            losses[str(shape.size)] = loss
    return Reconstructions(sheet(list(rows.values()), facts), list(rows), losses, len(images))


def sizes_shown(depth: int, heads: int) -> list[tuple[int, int]]:
    """The whole source, half as wide, half as deep, both, and a quarter of both; each once."""
    parts = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 4)]
    return list(dict.fromkeys((max(1, depth // a), max(1, heads // b)) for a, b in parts))


def unnormalised(images: Tensor, masked: Tensor, prediction: Tensor, patch: int, norm_pix: bool) -> Tensor:
    """Predictions (B, m, pixels) as pixels: with ``norm_pix``, mean and spread are those of the true patch."""
    if not norm_pix:
        return prediction.float()
    true = patchify(images, patch).gather(1, masked[..., None].expand_as(prediction))
    variance, mean = torch.var_mean(true, dim=-1, keepdim=True)
    return prediction.float() * (variance + 1e-6).sqrt() + mean


def filled(images: Tensor, masked: Tensor, pixels: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) whose patches ``masked`` (B, m) are ``pixels`` (B, m, C * patch^2)."""
    batch, channels, height, width = images.shape
    patches = patchify(images, patch).scatter(1, masked[..., None].expand_as(pixels), pixels)
    grid = patches.reshape(batch, height // patch, width // patch, channels, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)


def sheet(rows: list[Tensor], facts: dict[str, Any]) -> Image.Image:
    """One picture of rows of normalised images (B, C, H, W), small ones enlarged without smoothing."""
    lines = torch.cat([torch.cat(list(row), 2) for row in rows], 1)  # (C, rows x H, B x W)
    mean, std = (torch.tensor(facts[key]).view(-1, 1, 1) for key in ("mean", "std"))
    values = ((lines * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    image = Image.fromarray(values.numpy() if values.shape[2] == 3 else values[..., 0].numpy())
    factor = max(1, 64 // rows[0].shape[-1])
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
