"""Use a finished model: metrics on a split, what is seen in single images, feature vectors of a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweet.data import eval_batches, open_images
from sweet.errors import UserError
from sweet.models.store import load_model

from .device import resolve_device, use_plain_attention
from .network import Ready


def evaluate(
    model: Path, task: str | None, data: str, *, split: str, batch_size: int, device: str, limit: int | None
) -> dict[str, Any]:
    """Metrics of a fine-tuned model on a split, in float32; ``task`` None is the one that it was trained for.

    Raises UserError when its task or its classes are others.
    """
    ready = Ready(model, device)
    if task not in (None, ready.task):
        raise UserError(f"--task {task}: {model} was trained to {ready.task}")
    images = open_images(data, split)
    classes = ready.job.classes_of(images)
    if classes != ready.job.classes:
        raise UserError(f"--data {data}: its {len(classes)} classes are not the {len(ready.job.classes)} of {model}")
    if limit is not None:
        images = images.select(range(min(limit, len(images))))
    return ready.job.evaluate(ready.model, images, ready.facts, batch_size=batch_size, device=ready.device)


def predict(
    model: Path, images: list[Path], top: int | None, device: str, out: Path | None = None
) -> list[dict[str, Any]]:
    """What a model sees in image files, with pictures of it in the folder ``out``; UserError for an unreadable one."""
    from sweet.data.folder import FolderImages

    ready = Ready(model, device)
    source = FolderImages("IMAGES", "predict", [str(path) for path in images], None, None)
    top = ready.job.top if top is None else top
    return ready.job.predict(ready.model, source, ready.facts, top=top, device=ready.device, out=out)


@torch.no_grad()
def embed(model: Path, data: str, out: Path, split: str, batch_size: int, device: str) -> dict[str, Any]:
    """Write pooled features, one row per image: ``embedding`` (list of float32), and ``label`` where there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sweet.files import replacing

    vit, info = load_model(model, num_classes=0)
    place, facts, images = resolve_device(device), info["data"], open_images(data, split)
    vit.to(place)
    use_plain_attention(vit, place)
    batches = eval_batches(
        images, batch_size=batch_size, img_size=facts["img_size"], mean=facts["mean"], std=facts["std"], device=place
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
