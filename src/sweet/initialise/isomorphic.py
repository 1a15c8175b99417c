"""Isomorphic Pruning (Fang et al., ECCV 2024, arXiv 2407.04616), forced to exactly L blocks and H heads.

Parameters that are pruned together form a group, and only groups of the same kind compete. Of a ViT these are
the channels of the residual stream (one group for the whole network), the hidden units of each block and the heads of
each block. The score of a member is first-order Taylor, the sum of |w * gradient| over everything that would go with
it (weights and norm gains, no biases, as released), divided by its group's mean; a head's is the mean over its
channels.

The released recipe scores a classifier on 50 batches of 64; a source has none, so the loss is its own (``objective``):
``mae``, masked autoencoding through its decoder; or ``features``, what masking takes from its features of the visible
patches, for a checkpoint without a decoder; ``best`` (default) is the first that it allows. Whole images, centre crop,
``budget`` of them drawn by ``seed``. Counts are fixed by
the size, which makes the ranking global over the network for the stream and within a block for units and heads. Depth
is not pruned in the release; blocks are chosen by rule and scores are taken over the chosen ones. Kept parts keep
their order and scale. Fine-tuning follows like any other's; the release distils for 300 epochs.

Switches: ``objective``, and ``layers`` first (default) or even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sweet.data import ImageSource, some, step_generator, whole_images
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify, visible_tokens
from sweet.models.mae import reconstruct, sincos, split_patches
from sweet.storage.folders import StoredSource, source_tensors
from sweet.template.gains import READERS
from sweet.template.sizes import Size
from sweet.template.slices import FC1, FC2, PROJ, QKV
from sweet.template.source import target_layers

from .distilled import missed
from .selection import Selection, channels, cut

BATCH = 64
NORMS = ("norm.weight", "norm_pre.weight", "patch_embed.norm.weight")
OUTSIDE = (*NORMS, *READERS)  # of the blocks: gains of the stream, and what reads it


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    layers: Literal["even", "first"] = "first",
    objective: Literal["best", "mae", "features"] = "best",
) -> dict[str, Tensor]:
    """Weights cut from a dense source that is at least as deep and wide; needs ``data``.

    Raises UserError for ``objective="mae"`` where there is no decoder.
    """
    if data is None:
        raise ValueError("isomorphic: needs images")
    decodes = "pred.weight" in source.source.decoder
    if objective == "mae" and not decodes:
        raise UserError("objective=mae: this source has no decoder; use objective=features")
    config = source.config
    images = whole_images(some(data, budget, seed), source.data, batch_size=BATCH)
    chosen = target_layers(config.depth, size.depth, layers)
    loss_of = mae_loss if objective == "mae" or (objective == "best" and decodes) else features_loss
    scores = group_scores(taylor(source, images, seed, loss_of), config, chosen)
    keep = Selection(
        chosen,
        residual=best(scores.residual, size.width),
        inner=channels(best(scores.heads, size.heads), config.head_dim),
        hidden=best(scores.hidden, config.resized(size.depth, size.heads).hidden),
    )
    return cut(source.source, keep)


@dataclass(frozen=True)
class Scores:
    """Scores of the stream's channels (D,), and for each of n blocks of its heads (n, H) and hidden units (n, h)."""

    residual: Tensor
    heads: Tensor
    hidden: Tensor


def mae_loss(weights: Mapping[str, Tensor], images: Tensor, noise: Tensor, source: StoredSource) -> Tensor:
    """Masked autoencoding through the source's decoder; noise (B, N) chooses what is visible."""
    positions = sincos(source.config.grid, source.mae.decoder_width)
    return reconstruct(weights, images, noise, source.config, source.mae, positions).loss


def features_loss(weights: Mapping[str, Tensor], images: Tensor, noise: Tensor, source: StoredSource) -> Tensor:
    """The share of the variance of the source's features that the visible patches alone miss."""
    config, patches = source.config, patchify(images, source.config.patch_size)
    keep, _ = split_patches(noise, source.mae.mask_ratio)
    with torch.no_grad():
        known = visible_tokens(encode(weights, patches, config), keep, config)
    return missed(encode(weights, patches, config, keep=keep), known)


Loss = Callable[[Mapping[str, Tensor], Tensor, Tensor, StoredSource], Tensor]


def taylor(source: StoredSource, batches: Iterable[Tensor], seed: int, loss_of: Loss = mae_loss) -> dict[str, Tensor]:
    """|w * gradient| of every weight (timm's names, ``decoder.*``); gradients of a loss summed over batches."""
    tensors = {name: value for name, value in source_tensors(source.source).items() if not name.startswith("order.")}
    weights = {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}
    for step, images in enumerate(batches):
        noise = torch.rand(len(images), source.config.patches, generator=step_generator(seed, step, 0, "mask"))
        loss_of(weights, images, noise, source).backward()
    return {name: (w * w.grad).abs().detach() for name, w in weights.items() if w.grad is not None}


def group_scores(products: Mapping[str, Tensor], config: ViTConfig, layers: Sequence[int]) -> Scores:
    """Sums of ``products`` (|w * gradient|) over all that goes with a channel, head or hidden unit of ``layers``.

    The network ends in a decoder (``decoder.embed``), or in any other reader of the stream called ``head``. Some have
    further norms.
    """
    residual = products["patch_embed.proj.weight"].flatten(1).sum(1)
    for name in OUTSIDE:
        if name in products:
            residual = residual + products[name].view(-1, len(residual)).sum(0)
    heads, hidden = [], []
    for layer in layers:
        qkv, proj, fc1, fc2 = (products[f"blocks.{layer}.{name}"] for name in (QKV, PROJ, FC1, FC2))
        norms = products[f"blocks.{layer}.norm1.weight"] + products[f"blocks.{layer}.norm2.weight"]
        residual = residual + norms + qkv.sum(0) + fc1.sum(0) + proj.sum(1) + fc2.sum(1)
        of_channels = qkv.sum(1).view(3, -1).sum(0) + proj.sum(0) + products.get(f"blocks.{layer}.attn.norm.weight", 0)
        heads.append(of_channels.view(-1, config.head_dim).mean(1))
        of_units = fc1.sum(1).view(-1, fc2.shape[1]).sum(0) + fc2.sum(0)
        hidden.append(of_units + products.get(f"blocks.{layer}.mlp.norm.weight", 0))
    return Scores(*(s / s.mean(-1, keepdim=True) for s in (residual, torch.stack(heads), torch.stack(hidden))))


def best(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest scores along the last axis, ascending."""
    return scores.topk(count).indices.sort(-1).values
