"""Use a finished model: metrics on a split, what is seen in single images, feature vectors of a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweet.data import eval_batches, open_images
from sweet.errors import UserError
from sweet.storage.folders import load_model
from sweet.tasks.task import EvalSettings, Row
from sweet.training.device import resolve_device, use_plain_attention
from sweet.training.network import FinetunedModel

PREDICT_BATCH = 64  # images, or windows of an image, in one forward pass


def evaluate(
    model: Path, task: str | None, data: str, *, split: str, batch_size: int, device: str, limit: int | None
) -> dict[str, Any]:
    """Metrics of a fine-tuned model on a split, in float32; ``task`` None is the one that it was trained for.

    Raises UserError when its task or its classes are others.
    """
    tuned = FinetunedModel(model, device)
    if task not in (None, tuned.task_name):
        raise UserError(f"--task {task}: {model} was trained to {tuned.task_name}")
    images = open_images(data, split)
    classes, known = tuned.task.classes_of(images), tuned.task.classes
    if classes != known:
        raise UserError(f"--data {data}: its {len(classes)} classes are not the {len(known)} of {model}")
    if limit is not None:
        images = images.select(range(min(limit, len(images))))
    settings = EvalSettings(tuned.data, tuned.device, batch_size)
    return tuned.task.evaluate(tuned.model, images, settings).to_dict()


def predict(model: Path, images: list[Path], top: int | None, device: str, out: Path | None = None) -> list[Row]:
    """What a model sees in image files, with pictures of it in the folder ``out``; UserError for an unreadable one."""
    from sweet.data.folder import FolderImages

    tuned = FinetunedModel(model, device)
    source = FolderImages("IMAGES", "predict", [str(path) for path in images], None, None)
    top = tuned.task.top if top is None else top
    settings = EvalSettings(tuned.data, tuned.device, PREDICT_BATCH)
    return tuned.task.predict(tuned.model, source, settings, top=top, out=out)


@torch.no_grad()
def embed(model: Path, data: str, out: Path, split: str, batch_size: int, device: str) -> dict[str, Any]:
    """Write pooled features, one row per image: ``embedding`` (list of float32), and ``label`` where there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sweet.files import replacing

    vit, record = load_model(model, num_classes=0)
    place, data_config, images = resolve_device(device), record.data, open_images(data, split)
    vit.to(place)
    use_plain_attention(vit, place)
    batches = eval_batches(
        images,
        batch_size=batch_size,
        img_size=data_config.img_size,
        mean=data_config.mean,
        std=data_config.std,
        device=place,
    )
    vectors: list[Tensor] = [vit(batch).float().cpu() for batch, _ in batches]
    features = torch.cat(vectors)
    columns = {"embedding": pa.FixedSizeListArray.from_arrays(features.flatten().numpy(), features.shape[1])}
    if images.labels is not None:
        columns["label"] = pa.array(images.labels)
    with replacing(out) as temporary:
        pq.write_table(pa.table(columns), temporary)
        temporary.chmod(0o644)
    return {"images": len(features), "width": features.shape[1], "out": str(out)}
