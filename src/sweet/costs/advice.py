"""What does not fit: a recipe on these images and this machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from sweet.console import say
from sweet.recipes.schema import TrainKeys
from sweet.template.image_size import ImageSize, sides, size_text

FEW_STEPS = 200  # in all: fewer teach little
LARGE_BATCH, FEW_FOR_IT = 256, 1000  # a batch above the one, fewer steps than the other
SMALL_BATCH = 16
CPU_RATE = 1e11  # FLOPs a second of two cores or so
LONG = 24 * 3600.0  # seconds of a CPU
TINY = 64  # pixels: larger images lose much that is seen at so few


def advice(keys: TrainKeys, images: int, steps: int, flops: float, *, on_cpu: bool) -> list[str]:
    """A line for each thing that does not fit, with the keys that change it.

    Arguments: the recipe, how many images it has, how many steps and training FLOPs these make, and whether a CPU
    computes them.
    """
    enough = FEW_FOR_IT if keys.batch_size > LARGE_BATCH else FEW_STEPS
    found = [steps_text(keys, images, steps)] if steps < enough else []
    if keys.max_steps is not None and steps < keys.max_steps:
        found.append(
            f"max_steps={keys.max_steps} is not reached: epochs={keys.epochs:g} ends first, after {steps} steps"
        )
    seconds = flops / CPU_RATE
    if on_cpu and seconds > LONG:
        found.append(
            f"{flops / 1e15:,.0f} PFLOP without a GPU: about {seconds / 86400:,.0f} days here; smaller are the recipes "
            "quickstart and micro, and epochs=... or max_steps=... shorten it"
        )
    return [text for text in found if text]


def advise(
    keys: TrainKeys, images: int, steps: int, flops: float, *, on_cpu: bool, further: Sequence[str] = ()
) -> None:
    """Print :func:`advice`, and what else was found, on standard error."""
    for line in (*advice(keys, images, steps, flops, on_cpu=on_cpu), *further):
        say(f"note: {line}")


def shrunk_text(size: tuple[int, int] | None, img_size: ImageSize) -> list[str]:
    """That images of (width, height) pixels are seen at a small part of them; nothing where they are not."""
    seen = max(sides(img_size))
    if size is None or seen > TINY or min(size) < 2 * seen:
        return []
    return [
        f"images of {size[0]} x {size[1]} pixels are seen at {size_text(img_size)}; data.img_size={2 * seen} shows "
        "more, and takes about four times as long"
    ]


def steps_text(keys: TrainKeys, images: int, steps: int) -> str:
    """That there are few steps, and what makes more; nothing where ``max_steps`` is what limits them."""
    if keys.max_steps == steps:
        return ""
    made = "1 step" if steps == 1 else f"{steps} steps"
    text = f"{images:,} images in batches of {keys.batch_size:,} make {made} in all, few to learn from"
    if keys.batch_size > LARGE_BATCH:
        return f"{text}; smaller batches make more (batch_size=128 lr=1.5e-3)"
    more = f"epochs={ceil(keys.epochs * FEW_STEPS / steps)} makes {FEW_STEPS}"
    return f"{text}; {more}" + (f", batch_size={SMALL_BATCH} also makes more" if keys.batch_size > SMALL_BATCH else "")
