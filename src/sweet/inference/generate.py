"""Images from a model that was trained to generate them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torchvision.transforms.functional import to_pil_image

from sweet.data.class_names import one_spelling
from sweet.errors import UserError
from sweet.files import write_sums
from sweet.tasks.generation.generate import Generate
from sweet.tasks.pictures import contact_sheet, save_png
from sweet.tasks.task import EvalSettings
from sweet.training.network import FinetunedModel

SHEET = "contact_sheet.png"


def generate(
    model: Path,
    out: Path,
    *,
    classes: str | Sequence[str] | None = None,
    per_class: int = 8,
    guidance: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "auto",
) -> Mapping[str, object]:
    """Write ``per_class`` PNG files of each of ``classes`` (default all) and one contact sheet; returns what was made.

    ``classes`` may be a text with commas between names. The n-th image of a class is the same for one seed, whatever
    else is generated. Raises UserError for an unknown class and for a model that does something else, before anything
    is written.
    """
    tuned = FinetunedModel(model, device)
    task = tuned.task
    if not isinstance(task, Generate):
        raise UserError(f"MODEL {model}: was trained to {tuned.task_name}, not to generate")
    wanted = named_classes(classes, task.classes) if isinstance(classes, str) else classes
    names = list(dict.fromkeys(task.classes if wanted is None else wanted))
    known = f"{model} knows {'; '.join(map(repr, task.classes))}"
    if not names:
        raise UserError(f"--classes {classes!r}: names no class; {known}")
    for name in names:
        if name not in task.classes:
            raise UserError(f"--classes {name}: unknown; {known}")
    labels = [task.classes.index(name) for name in names for _ in range(per_class)]
    batches = task.sample(
        tuned.model,
        labels,
        EvalSettings(tuned.data, tuned.device, batch_size),
        seed=seed,
        steps=steps,
        guidance=guidance,
    )
    images = torch.cat([batch.cpu() for batch in batches])
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{_slug(label, task.classes[label])}-{i % per_class:04d}.png" for i, label in enumerate(labels)]
    for file, image in zip(files, images, strict=True):
        save_png(to_pil_image(image), file)
    contact_sheet(out / SHEET, images, names)
    write_sums(out, {file.name: file for file in [*files, out / SHEET]})
    return {
        "images": len(files),
        "classes": len(names),
        "steps": steps or task.head.steps,
        "guidance": guidance or task.head.guidance,
        "seed": seed,
        "out": str(out),
    }


def named_classes(text: str, known: Sequence[str]) -> list[str]:
    """The classes in a text with commas between them; a name may hold commas: the longest known one counts."""
    words, names = one_spelling(text).split(","), []
    while words:
        ends = range(len(words), 0, -1)
        whole = (",".join(words[:end]).strip() for end in ends)
        name, end = next(((name, end) for name, end in zip(whole, ends, strict=True) if name in known), (words[0], 1))
        words = words[end:]
        if name.strip():
            names.append(name.strip())
    return names


def _slug(label: int, name: str) -> str:
    """A file name for a class: its number, and what of its name is safe anywhere."""
    return f"{label:03d}-{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')}".rstrip("-")
