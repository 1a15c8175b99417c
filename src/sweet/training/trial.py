"""``sweet plan --data``: a look at the images, and two steps of a pre-training against the clock. Writes nothing."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch

from sweet.console import Progress, listening_to_progress
from sweet.costs.advice import advice, shrunk_text
from sweet.costs.memory import machine_memory, memory_note
from sweet.costs.plan import pretraining_cost
from sweet.data import open_images, should_pack
from sweet.models.device import resolve_device
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import PretrainRecipe

from .pretrain import prepare

TIMED = 2  # steps, after one that warms up
LARGEST_STEP = 1e11  # training FLOPs of a timed step of a CPU, a second or so; larger batches are timed in part


@dataclass(frozen=True)
class Trial:
    """What a pre-training takes here: ``images`` there are, ``memory_mb`` at the most, notes on what does not fit."""

    images: int
    steps: int
    seconds_per_step: float
    memory_mb: int
    device: str
    notes: list[str]

    def to_dict(self) -> dict[str, object]:
        """For people and machines."""
        return {
            "images": self.images,
            "steps": self.steps,
            "minutes": round(self.steps * self.seconds_per_step / 60, 1),
            "seconds_per_step": round(self.seconds_per_step, 4),
            "memory_mb": self.memory_mb,
            "device": self.device,
            "notes": self.notes,
        }


def trial(recipe: PretrainRecipe) -> Trial:
    """Time :data:`TIMED` steps of a recipe on as many of its images as they take.

    The decoded images of the whole set count to the memory where a training would keep them. torch.compile is left out.
    A CPU times a part of a batch that would take it minutes, and counts time and memory up to the whole one.
    Raises UserError for images that cannot be learned from.
    """
    assert recipe.data.source is not None
    found = open_images(recipe.data.source, recipe.data.train_split, pixels=recipe.data)
    count = min(len(found), recipe.data.limit or len(found))
    resolved = resolve(recipe)
    steps, vit = resolved.steps(count), resolved.vit
    cost = pretraining_cost(resolved, count)
    on_cpu = resolve_device(recipe.device).type == "cpu"
    batch = part_of_batch(recipe, cost / steps) if on_cpu else recipe.batch_size
    few = min(count, (TIMED + 1) * batch)
    short = recipe.model_copy(
        update={
            "batch_size": batch,
            "max_steps": TIMED + 1,
            "epochs": float(TIMED + 1),
            "data": recipe.data.model_copy(update={"limit": few, "labels": None}),
            "optim": recipe.optim.model_copy(update={"compile": False}),
        }
    )
    times: list[float] = []

    def note(_: Progress) -> None:
        times.append(time.perf_counter())

    with TemporaryDirectory() as folder:  # for the list of images that are skipped
        run = prepare(short, Path(folder))
        device, parts = run.accelerator.device, recipe.batch_size / batch
        states = 3 * 4 * sum(parameter.numel() for parameter in run.model.parameters())  # gradients, and Adam's two
        before = peak_memory(device) + states
        times.append(time.perf_counter())
        with listening_to_progress(note):
            run.train(None, resume=False, quiet=True)
    seconds = parts * mean(later - earlier for earlier, later in pairwise(times[1:]))
    pixels = vit.patches * vit.patch_size**2 * found.pixel_format.stored_channels
    kept = count * pixels if should_pack(found, vit.img_size) else 0
    memory = peak_memory(device)
    memory += round((parts - 1) * max(0, memory - before)) + kept
    notes = [
        *advice(recipe, count, steps, cost, on_cpu=on_cpu),
        *shrunk_text(found.first_size, vit.img_size),
        *memory_note(memory, machine_memory() if on_cpu else None),
    ]
    return Trial(count, steps, seconds, round(memory / 1e6), str(device), notes)


def part_of_batch(recipe: PretrainRecipe, flops: float) -> int:
    """Images of a timed step of a CPU; ``flops`` are those of a whole step."""
    micro_batches = recipe.optim.accumulate
    images = int(recipe.batch_size * min(1.0, LARGEST_STEP / flops))
    return max(images // micro_batches, 1) * micro_batches


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device where it has its own memory, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
