"""Use a fine-tuned model: metrics on a split, what is seen in single images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweet.console import say, warn
from sweet.data import PixelFormat, open_images, readable_images
from sweet.data.folder import FolderImages, image_files
from sweet.data.identity import different_classes
from sweet.errors import UserError
from sweet.storage.records import RecordedMetrics
from sweet.tasks.task import EvalSettings, Row
from sweet.training.network import FinetunedModel

PREDICT_BATCH = 64  # images, or windows of an image, in one forward pass


def evaluate(
    model: Path, task: str | None, data: str, *, split: str, batch_size: int, device: str, limit: int | None
) -> RecordedMetrics:
    """Metrics of a fine-tuned model on a split, in float32; ``task`` None is the one that it was trained for.

    Raises UserError when its task or its classes are others.
    """
    tuned = FinetunedModel(model, device)
    if task not in (None, tuned.task_name):
        raise UserError(f"--task {task}: {model} was trained to {tuned.task_name}")
    images = open_images(data, split, pixels=tuned.data)
    classes, known = tuned.task.classes_of(images), tuned.task.classes
    if classes != known and not tuned.task.relabel(images, known):
        how = different_classes(known, classes)
        raise UserError(f"--data {data}: its {len(classes)} classes are not the {len(known)} of {model} ({how})")
    if images.drawn_text:
        say(f"note: {images.drawn_text}")
    if limit is not None:
        images = images.select(range(min(limit, len(images))))
    settings = EvalSettings(tuned.data, tuned.device, batch_size, shows="evaluate")
    return tuned.task.evaluate(tuned.model, images, settings).to_dict()


def predict(
    model: Path,
    images: Sequence[Path],
    top: int | None,
    device: str,
    out: Path | None = None,
    *,
    threshold: float | None = None,
) -> list[Row]:
    """What a model sees in image files and in those of folders: rows for a table, pictures in the folder ``out``.

    ``top`` answers for each (None: the task's default number), of those that reach ``threshold``. What cannot be read
    is named and left out. Raises UserError where nothing can be read.
    """
    tuned = FinetunedModel(model, device)
    # a pattern such as photos/** names a folder and what lies in it
    names = list(dict.fromkeys(file for place in images for file in _files(place)))
    source = FolderImages("IMAGES", "predict", names, None, None)
    source.read_as(PixelFormat.of(tuned.data))
    readable, problems = readable_images(source, None)
    for problem in problems:
        warn(f"{problem}; left out")
    top = tuned.task.top if top is None else top
    settings = EvalSettings(tuned.data, tuned.device, PREDICT_BATCH, shows="predict", threshold=threshold)
    rows = tuned.task.predict(tuned.model, readable, settings, top=top, out=out)
    for note in tuned.task.notes:
        say(note)
    return rows


def _files(place: Path) -> list[str]:
    """A file, or the images in a folder. Raises UserError for a folder without any."""
    found = list(image_files(place)) if place.is_dir() else [str(place)]
    if not found:
        raise UserError(f"IMAGES {place}: holds no images")
    return found
