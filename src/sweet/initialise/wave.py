"""WAVE (Feng et al., "Weight Templates for Adaptive Initialization of Variable-sized Models", arXiv 2406.17503).

A Kronecker source gives its templates, frozen; the target gets scalers of its own, which learn on a few images. Those
of a (layer, tile) that the source has start as its copy, those of further tiles from N(0, 1/sqrt(N)) over N templates
(start and lr are not public). Of a block that stands for several, what each copy adds to the stream is
divided by their number. Everything outside the templates is the prefix slice of ``sweet``; so, untrained, a target no
wider than the source is that of ``sweet`` with order=prefix. The loss is the source's: masked autoencoding through its
decoder, whose embedding learns along; or, of a source that was learned from labels and a teacher as in the paper
(``objective=supervised``), the distance to that source's own answers, so that no label is looked at here.

Widths are multiples of the source's tile, as in the paper. Switches: ``layers`` first (default) or even; ``steps``,
``batch`` and ``lr`` of AdamW without decay, half a cosine to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import reconstruct, sincos
from sweet.models.source_module import as_parameters, as_tensors
from sweet.storage.folders import StoredSource
from sweet.template.constraints import Kronecker
from sweet.template.sizes import Size
from sweet.template.slices import MATRICES, WRITERS, unstack_blocks
from sweet.template.source import target_layers
from sweet.template.target import target_weights
from sweet.training.short_run import ShortRun, train_on
from sweet.training.supervised import class_logits, distance

from .sweet import best_gains

EMBEDDING = ("decoder.embed.weight", "decoder.embed.bias")


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    layers: Literal["even", "first"] = "first",
    steps: int = 200,
    batch: int = 256,
    lr: float = 1e-3,
) -> dict[str, Tensor]:
    """Weights of any depth and of widths that are whole tiles; needs ``data``. ``steps=0`` is the untrained target.

    Raises UserError for another width, for a source without a decoder or head and for switches out of range.
    """
    core = source.source.core
    if data is None or not isinstance(core, Kronecker):
        raise TypeError("wave: needs images and a Kronecker source")
    if size.width % core.tile:
        raise UserError(f"--method wave: {size} has {size.width} channels, not whole tiles of {core.tile}")
    if not source.source.decoder:
        raise UserError("--method wave: learns by its source's objective, and this one has no decoder or head")
    settings = ShortRun(steps, batch, lr, device=device, run=run)
    gains = best_gains(source, "prefix")
    untrained = target_weights(
        source.source, size.depth, size.width, order="prefix", layers=layers, gains=gains, seed=seed
    )
    chosen = target_layers(core.depth, size.depth, layers)
    start = replace(core, scalers=target_scalers(core, chosen, size.width // core.tile, seed))
    config = source.config.resized(size.depth, size.heads)
    model: TiledTarget
    if source.record.objective == "supervised":
        model = TaughtTarget(start, untrained, config, source)
    else:
        model = TiledTarget(start, untrained, config, source.mae)
    train_on(model, data, source, settings, budget=budget, seed=seed)
    return {name: value.detach() for name, value in model.weights().items()}


def target_scalers(core: Kronecker, layers: list[int], tiles: int, seed: int) -> dict[str, Tensor]:
    """{name: (L*, tile rows, tile columns, N)} of a target with ``tiles`` tiles of the stream, made of some layers."""
    generator = torch.Generator().manual_seed(seed)
    share = 1.0 / torch.tensor([layers.count(layer) for layer in layers])
    result = {}
    for name, rows in core.at_layers(layers).scalers.items():
        old = rows.unflatten(1, (-1, rows.shape[2]))  # L part inner-or-stream stream-or-inner N
        shape = (len(layers), old.shape[1], tiles, tiles, old.shape[4])
        new = torch.randn(shape, generator=generator) * shape[4] ** -0.5
        known = min(tiles, old.shape[2])
        new[:, :, :known, :known] = old[:, :, :known, :known]
        result[name] = (new * share.view(-1, 1, 1, 1, 1) if name in WRITERS else new).flatten(1, 2)
    return result


class TiledTarget(nn.Module):
    """A target whose matrices are made of frozen templates; its forward is the MAE loss.

    Scalers and decoder embedding learn; everything else stays as in ``weights`` (timm's names, ``decoder.*``).
    """

    def __init__(self, core: Kronecker, weights: Mapping[str, Tensor], config: ViTConfig, mae: MaeConfig) -> None:
        super().__init__()
        self.config, self.mae = config, mae
        self.scalers = as_parameters(core.scalers)
        self.embedding = as_parameters({name: weights[name] for name in EMBEDDING})
        self.templates = as_parameters(core.templates, learn=False)
        rest = {n: v for n, v in weights.items() if not (n.startswith("blocks.") and n.endswith(MATRICES))}
        self.rest = as_parameters(rest, learn=False)
        self.positions = nn.Parameter(sincos(config.grid, mae.decoder_width), requires_grad=False)

    def weights(self) -> dict[str, Tensor]:
        """State dict of the target, made of this module's own tensors."""
        core = Kronecker(as_tensors(self.templates), as_tensors(self.scalers))
        built = unstack_blocks(core.stacked(core.width, self.config.mlp))
        return as_tensors(self.rest) | built | as_tensors(self.embedding)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W), noise (B, N) that chooses the masked patches -> the loss."""
        return reconstruct(self.weights(), images, noise, self.config, self.mae, self.positions).loss


class TaughtTarget(TiledTarget):
    """The same, with the distance to the answers of the whole source, a classifier, as its loss."""

    def __init__(self, core: Kronecker, weights: Mapping[str, Tensor], config: ViTConfig, source: StoredSource) -> None:
        super().__init__(core, weights, config, source.mae)
        size = source.config.size
        self.source_config = source.config
        whole = target_weights(source.source, size.depth, size.width, order="prefix", layers="even")
        self.teacher = as_parameters(whole, learn=False)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W) -> the loss; nothing is masked."""
        with torch.no_grad():
            wanted = class_logits(as_tensors(self.teacher), images, self.source_config)
        return distance(class_logits(self.weights(), images, self.config), wanted)
