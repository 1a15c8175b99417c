"""What masked autoencoders of several sizes, made from one source, see behind the mask (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sweet.costs.budget import read_sizes, size_of
from sweet.data import open_images, some, step_generator, whole_images
from sweet.errors import UserError
from sweet.models.forward import patchify, unpatchify
from sweet.models.mae import reconstruct, sincos
from sweet.storage.folders import StoredSource, load_source
from sweet.tasks.pictures import contact_sheet
from sweet.template.sizes import Size
from sweet.template.target import target_weights


@dataclass(frozen=True)
class Completion:
    """Images (B, C, S, S) uint8: as they are, with the masked patches grey, and per size as it completes them.

    ``losses`` are those of the masked patches of these images, per size; ``order`` is the basis of the slices.
    """

    original: Tensor
    masked: Tensor
    completed: dict[str, Tensor]
    losses: dict[str, float]
    order: str


@torch.no_grad()
def reconstruct_at(
    stored: StoredSource,
    sizes: list[Size],
    images: Tensor,
    *,
    order: str | None = None,
    seed: int = 0,
) -> Completion:
    """Complete images (B, C, H, W), normalised as the source's, by its slices of ``sizes``, all with the same masks.

    Where the autoencoder learned patches of mean 0 and variance 1, the true mean and variance are put back, as MAE's
    pictures do. ``order`` as in :func:`sweet.template.target.target_weights`, default principal where there is one.
    """
    config, mae, source = stored.config, stored.mae, stored.source
    order = order or ("prefix" if source.order is None else "principal")
    patches = patchify(images, config.patch_size)
    noise = torch.rand(patches.shape[:2], generator=step_generator(seed, 0, 0, "mask"))
    positions = sincos(config.grid, mae.decoder_width)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (stored.data.mean, stored.data.std))
    variance, centre = torch.var_mean(patches, dim=-1, keepdim=True)
    scale, shift = ((variance + 1e-6).sqrt(), centre) if mae.norm_pix else (torch.ones(1), torch.zeros(1))

    def pixels(patches: Tensor) -> Tensor:
        back = unpatchify(patches, config.patch_size, config.in_chans, config.grid)
        back = back * std + mean
        return (back * 255).round().clamp(0, 255).to(torch.uint8)

    completed, losses, hidden = {}, {}, torch.zeros(patches.shape[:2], dtype=torch.bool)
    for size in sizes:
        weights = target_weights(source, size.depth, size.width, order=order)
        seen = reconstruct(weights, images, noise, config.resized(size.depth, size.heads), mae, positions)
        whole = torch.zeros_like(patches)
        where = seen.masked[..., None].expand(-1, -1, patches.shape[-1])
        whole = whole.scatter(1, where, seen.prediction.float()) * scale + shift
        hidden = hidden.scatter(1, seen.masked, True)
        completed[str(size)] = pixels(torch.where(hidden[..., None], whole, patches))
        losses[str(size)] = round(float(seen.loss), 4)
    cover = hidden[..., None].expand_as(patches).float()
    masked = unpatchify(cover, config.patch_size, config.in_chans, config.grid) > 0
    original = pixels(patches)
    return Completion(original, torch.where(masked, 128, original), completed, losses, order)


def draw_reconstructions(
    source: Path, sizes: list[str], data: str, out: Path, *, split: str = "val", count: int = 6, seed: int = 0
) -> Mapping[str, object]:
    """Write a PNG, a row per image: masked, completed by each size (with its loss), original.

    Raises UserError for a source without a decoder and for a word of ``sizes`` that names none.
    """
    stored = load_source(source)
    if "pred.weight" not in stored.source.decoder:
        raise UserError(f"SOURCE {source}: has no decoder, it can reconstruct nothing")
    parsed = [size_of(named, stored.config) for _, named in read_sizes(sizes)]
    images = some(open_images(data, split, pixels=stored.data), count, seed)
    batches = whole_images(images, stored.data, batch_size=count)
    shown = reconstruct_at(stored, parsed, next(batches), seed=seed)
    columns = [shown.masked, *shown.completed.values(), shown.original]
    names = ["masked", *(f"{size} {loss:.3f}" for size, loss in shown.losses.items()), "original"]
    rows = [str(number + 1) for number in range(len(images))]
    contact_sheet(out, torch.stack(columns, 1).flatten(0, 1), rows, columns=names, side=192)
    return {"images": len(images), "loss": shown.losses, "out": str(out)}
