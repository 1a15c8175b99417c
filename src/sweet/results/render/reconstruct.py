"""What networks of several sizes, sliced from one source, make of images with hidden patches (the paper's Figure 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from sweet.data import open_images, packed, shuffled, whole_images
from sweet.inference.checks import mae_loss
from sweet.inference.reconstruct import reconstruct_at
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size
from sweet.template.target import target_weights

SHOWN, MEASURED = 6, 512  # images in the picture, and for the loss
SIDE = 192  # pixels of an image there, of small ones at most so many


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
    config, mae, data_config = stored.config, stored.mae, stored.data
    if "pred.weight" not in stored.source.decoder:
        return None
    source = open_images(data, "val", pixels=data_config)
    images = packed(source.select(shuffled(len(source), 0)[:MEASURED]), config.img_size)
    sizes = sizes_shown(config.size)
    shown = reconstruct_at(stored, sizes, next(whole_images(images, data_config, batch_size=SHOWN)))
    losses = {}
    for size in sizes:
        weights = target_weights(stored.source, size.depth, size.width, order=shown.order)
        loss = mae_loss(weights, config.resized(size.depth, size.heads), mae, images, data_config)
        if loss is not None:
            losses[str(size)] = loss
    rows = {"image": shown.original, "visible": shown.masked, **shown.completed}
    return Reconstructions(sheet(list(rows.values())), list(rows), losses, len(images))


def sizes_shown(whole: Size) -> list[Size]:
    """The whole source, half as wide, half as deep, both, and a quarter of both; each once."""
    shares = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 4)]
    found = [Size(max(1, whole.depth // a), max(1, whole.heads // b), whole.head_dim) for a, b in shares]
    return list(dict.fromkeys(found))


def sheet(rows: list[Tensor]) -> Image.Image:
    """One picture of rows of images (B, C, H, W) uint8, small ones enlarged without smoothing."""
    values = torch.cat([torch.cat(list(row), 2) for row in rows], 1).permute(1, 2, 0)
    image = Image.fromarray(values.numpy() if values.shape[2] == 3 else values[..., 0].numpy())
    factor = max(1, SIDE // rows[0].shape[-1])
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
