"""A short training inside another verb: some hundred steps on unlabelled images, by the loop of every verb."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweet.data import Batches, ImageSource, onto, packed, some, step_generator
from sweet.data.identity import identity
from sweet.errors import UserError
from sweet.files import read_json, write_json
from sweet.recipes.schema import OptimKeys, TrainKeys
from sweet.storage.folders import StoredSource

from .device import make_accelerator
from .loop import ParameterGroup, train

CHECKPOINT = 100  # steps
LATER = ("source", "fit", "fit_images")  # settings that earlier versions did not note


@dataclass(frozen=True)
class ShortRun:
    """How long and how fast: ``lr`` is the peak, ``warmup`` a share of the steps; then half a cosine to zero.

    ``run`` is a folder for ``metrics.jsonl``, the loss curve, and for checkpoints, from which an interrupted run goes
    on; None writes nothing and shows no progress. ``steps`` may be 0. Raises UserError for a number out of range.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: float = 0.0
    device: str = "auto"
    run: Path | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.steps <= 10**9 and 1 <= self.batch_size <= 2**20 and self.lr > 0):
            given = f"steps={self.steps} batch={self.batch_size} lr={self.lr:g}"
            raise UserError(f"{given}: should be from 0 to 1e9, from 1 to {2**20} and above 0")


def train_on(
    model: nn.Module,
    data: ImageSource,
    source: StoredSource,
    short: ShortRun,
    *,
    budget: int | None = None,
    seed: int = 0,
    groups: Sequence[ParameterGroup] | None = None,
) -> None:
    """Train ``model`` in place by its loss, ``model(images, noise)``; it ends on the CPU.

    Arguments: the images (B, C, H, W) are random crops of ``budget`` images of ``data`` drawn by ``seed`` (None: all),
    normalised as ``source`` saw them; noise (B, N) in 0..1 is for masks. ``groups`` are the optimiser's, by default all
    that learns, without decay. Raises UserError when the loss diverges, or a run goes on with other images.
    """
    if not short.steps:
        return
    patches, steps = source.config.patches, short.steps
    keys = TrainKeys(
        seed=seed, epochs=steps, max_steps=steps, batch_size=short.batch_size, lr=short.lr, checkpoint_every=CHECKPOINT
    )
    optim = OptimKeys(warmup=short.warmup)
    accelerator = make_accelerator(short.device, optim.precision, 1)
    images = some(data, budget, seed)
    batches = crops(images, source, short.batch_size, seed, accelerator.device)

    def loss_of(model: nn.Module, images: Tensor, _: Any, step: int) -> Tensor:
        noise = torch.rand(len(images), patches, generator=step_generator(seed, step, 0, "mask"))
        loss: Tensor = model(images, onto(noise, images.device))
        return loss

    learning: list[ParameterGroup] = [
        {"params": [p for p in model.parameters() if p.requires_grad], "weight_decay": 0.0}
    ]
    try:
        train(
            model,
            groups or learning,
            batches,
            loss_of,
            keys=keys,
            optim=optim,
            accelerator=accelerator,
            run=short.run,
            resume=short.run is not None,
            quiet=short.run is None,
            images=None if short.run is None else {"fit": identity(images)},
        )
    except FloatingPointError:
        raise UserError(f"lr={short.lr:g}: the loss diverged; try a lower one") from None
    model.cpu()


def crops(
    images: ImageSource, source: StoredSource, batch_size: int, seed: int, device: torch.device | str = "cpu"
) -> Batches:
    """Random crops of images, normalised as ``source`` saw them."""
    known, img_size = source.data, source.config.img_size
    return Batches(
        packed(images, img_size),
        batch_size=batch_size,
        seed=seed,
        img_size=img_size,
        mean=known.mean,
        std=known.std,
        interpolation=known.interpolation,
        device=device,
    )


def same_settings(run: Path, settings: Mapping[str, object]) -> None:
    """Note the settings of a training in its folder. Raises UserError where it was begun with others.

    What an earlier version did not note (``LATER``) is not compared.
    """
    path, values = run / "settings.json", json.loads(json.dumps(settings))
    if path.is_file():
        before = {name: values[name] for name in LATER if name in values} | read_json(path)
        for name in values | before:
            if values.get(name) != before.get(name):
                raise UserError(f"--resume: begun with {name}={before.get(name)}, now it is {values.get(name)}")
        return
    write_json(path, values)
