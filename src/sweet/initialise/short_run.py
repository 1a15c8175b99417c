"""A short training inside an initialiser: some hundred steps on unlabelled images, by the loop of every verb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweet.data import Batches, ImageSource, packed, shuffled, step_generator
from sweet.errors import UserError
from sweet.models.store import StoredSource
from sweet.recipe import OptimKeys, TrainKeys
from sweet.training.device import make_accelerator
from sweet.training.loop import train

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ShortRun:
    """How long and how fast: ``lr`` is the peak, ``warmup`` a share of the steps; then half a cosine to zero.

    ``run`` is a folder for ``metrics.jsonl``, the loss curve; None writes nothing and shows no progress. No step at all
    is a run, too.
    Raises UserError for a number out of range.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: float = 0.0
    device: str = "auto"
    run: Path | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or self.lr <= 0:
            asked = f"steps={self.steps} batch={self.batch_size} lr={self.lr:g}"
            raise UserError(f"{asked}: should be at least 0, at least 1 and above 0")


def train_on(
    model: nn.Module,
    groups: list[dict[str, Any]],
    loss: Loss,
    data: ImageSource,
    source: StoredSource,
    told: ShortRun,
    *,
    budget: int | None,
    seed: int,
) -> None:
    """Train ``model`` in place by ``loss(model, images, noise)``; it ends on the CPU.

    Images are random crops, (B, C, H, W) as the source saw them, of ``budget`` images drawn by ``seed`` (None: all);
    noise (B, N) in 0..1 is for masks. ``groups`` are AdamW's.
    """
    if not told.steps:
        return
    facts, config = source.info["data"], source.config
    keys = TrainKeys(
        seed=seed, epochs=1, max_steps=told.steps, batch_size=told.batch_size, lr=told.lr, checkpoint_every=told.steps
    )
    optim = OptimKeys(warmup=told.warmup)
    accelerator = make_accelerator(told.device, optim.precision, 1, None)
    images = data if budget is None else data.select(shuffled(len(data), seed)[:budget])
    batches = Batches(
        packed(images, config.img_size),
        batch_size=told.batch_size,
        seed=seed,
        augment="rrc",
        img_size=config.img_size,
        mean=facts["mean"],
        std=facts["std"],
        interpolation=facts["interpolation"],
        device=accelerator.device,
    )

    def loss_of(model: nn.Module, images: Tensor, _: Any, step: int) -> Tensor:
        noise = torch.rand(len(images), config.patches, generator=step_generator(seed, step, 0, "mask"))
        return loss(model, images, noise.to(images.device))

    steps = _Repeated(batches, told.steps)
    train(
        model,
        groups,
        steps,
        loss_of,
        keys=keys,
        optim=optim,
        accelerator=accelerator,
        run=told.run,
        quiet=told.run is None,
    )
    model.cpu()


@dataclass(frozen=True)
class _Repeated:
    """Batches for a run that is told in steps, not in epochs."""

    batches: Batches
    steps_per_epoch: int

    def iterate(self, start: int, stop: int) -> Any:
        return self.batches.iterate(start, stop)
