"""Use a fine-tuned model: metrics on a split, what is seen in single images."""

from __future__ import annotations

from pathlib import Path

from sweet.data import PixelFormat, open_images
from sweet.data.folder import FolderImages
from sweet.data.identity import different_classes
from sweet.errors import UserError
from sweet.storage.records import RecordedMetrics
from sweet.tasks.task import EvalSettings, Row
from sweet.training.network import FinetunedModel

PREDICT_BATCH = 64  # images, or windows of an image, in one forward pass


def evaluate(
    model: Path, task: str | None, data: str, *, split: str, batch_size: int, device: str, limit: int | None
) -> RecordedMetrics:
    """RecordedMetrics of a fine-tuned model on a split, in float32; ``task`` None is the one that it was trained for.

    Raises UserError when its task or its classes are others.
    """
    tuned = FinetunedModel(model, device)
    if task not in (None, tuned.task_name):
        raise UserError(f"--task {task}: {model} was trained to {tuned.task_name}")
    images = open_images(data, split, pixels=tuned.data)
    classes, known = tuned.task.classes_of(images), tuned.task.classes
    if classes != known and not images.relabelled(known):
        how = different_classes(known, classes)
        raise UserError(f"--data {data}: its {len(classes)} classes are not the {len(known)} of {model} ({how})")
    if limit is not None:
        images = images.select(range(min(limit, len(images))))
    settings = EvalSettings(tuned.data, tuned.device, batch_size)
    return tuned.task.evaluate(tuned.model, images, settings).to_dict()


def predict(model: Path, images: list[Path], top: int | None, device: str, out: Path | None = None) -> list[Row]:
    """What a model sees in image files: rows for a table, ``top`` answers for each (None: the task's default number).

    Pictures of it go to the folder ``out``. Raises UserError for an unreadable file.
    """
    tuned = FinetunedModel(model, device)
    source = FolderImages("IMAGES", "predict", [str(path) for path in images], None, None)
    source.read_as(PixelFormat.of(tuned.data))
    top = tuned.task.top if top is None else top
    settings = EvalSettings(tuned.data, tuned.device, PREDICT_BATCH)
    return tuned.task.predict(tuned.model, source, settings, top=top, out=out)
