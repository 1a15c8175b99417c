"""Use a finished model: metrics on a split, classes of single images, feature vectors of a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweet.data import ImageSource, Packed, eval_batches, normalise, open_images
from sweet.data.packed import centre_square
from sweet.errors import UserError
from sweet.models.store import load_model
from sweet.tasks import TASKS

from .device import resolve_device, use_plain_attention


class Ready:
    """A stored model on its device, with what is needed to feed it."""

    def __init__(self, folder: Path, device: str, **timm_options: Any) -> None:
        self.model, self.info = load_model(folder, **timm_options)
        self.data: dict[str, Any] = self.info["data"]
        self.device = resolve_device(device)
        self.model.to(self.device).eval()
        use_plain_attention(self.model, self.device)

    def classes(self, folder: Path) -> list[str]:
        classes: list[str] | None = self.data["classes"]
        if not classes:
            raise UserError(f"{folder}: has no class names; fine-tune it first (sweet finetune)")
        return classes

    def batches(self, data: ImageSource | Packed, batch_size: int) -> Any:
        return eval_batches(
            data,
            batch_size=batch_size,
            img_size=self.data["img_size"],
            mean=self.data["mean"],
            std=self.data["std"],
            device=self.device,
        )


def evaluate(
    model: Path, task: str, data: str, *, split: str, batch_size: int, device: str, limit: int | None
) -> dict[str, Any]:
    """Metrics of a fine-tuned model on a split, in float32. Raises UserError when its classes are not the data's."""
    if task not in TASKS:
        raise UserError(f"--task {task}: unknown, expected one of {', '.join(TASKS)}")
    ready = Ready(model, device)
    images = open_images(data, split)
    classes = TASKS[task].classes_of(images)
    if classes != ready.classes(model):
        raise UserError(
            f"--data {data}: its {len(classes)} classes are not the {len(ready.data['classes'])} of {model}"
        )
    if limit is not None:
        images = images.select(range(min(limit, len(images))))
    return TASKS[task](classes).evaluate(ready.model, ready.batches(images, batch_size))


@torch.no_grad()
def predict(model: Path, images: list[Path], top: int, device: str) -> list[dict[str, Any]]:
    """The ``top`` classes of each image file with their probabilities. Raises UserError for an unreadable image."""
    from sweet.data.folder import FolderImages

    ready = Ready(model, device)
    classes = ready.classes(model)
    source = FolderImages("IMAGES", "predict", [str(path) for path in images], None, None)
    rows = []
    for index, path in enumerate(images):
        pixels = centre_square(source.decode(index), ready.data["img_size"])
        batch = normalise(pixels[None].to(ready.device), ready.data["mean"], ready.data["std"])
        probabilities = ready.model(batch).float().softmax(-1)[0]
        best = probabilities.topk(min(top, len(classes)))
        rows += [
            {"image": str(path), "class": classes[index], "probability": round(value, 5)}
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    return rows


@torch.no_grad()
def embed(model: Path, data: str, out: Path, split: str, batch_size: int, device: str) -> dict[str, Any]:
    """Write pooled features, one row per image: ``embedding`` (list of float32), and ``label`` where there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sweet.files import replacing

    ready = Ready(model, device, num_classes=0)
    images = open_images(data, split)
    vectors: list[Tensor] = [ready.model(batch).float().cpu() for batch, _ in ready.batches(images, batch_size)]
    features = torch.cat(vectors)
    columns = {"embedding": pa.FixedSizeListArray.from_arrays(features.flatten().numpy(), features.shape[1])}
    if images.labels is not None:
        columns["label"] = pa.array(images.labels)
    with replacing(out) as temporary:
        pq.write_table(pa.table(columns), temporary)
        temporary.chmod(0o644)
    return {"images": len(features), "width": features.shape[1], "out": str(out)}
