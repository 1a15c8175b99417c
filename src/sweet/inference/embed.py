"""One feature vector per image, in a parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sweet.console import say
from sweet.data import ImageSource, open_images, whole_images
from sweet.files import replacing, sha256
from sweet.models.device import resolve_device
from sweet.storage.folders import load_model
from sweet.storage.layout import TENSORS

MODEL_KEY = b"sweet_model_sha256"  # in the metadata of the file: the checksum of the weights that made it


class Encoder:
    """A model folder that turns images into vectors: the mean of the patch tokens after the final norm."""

    def __init__(self, folder: Path, device: str) -> None:
        self.vit, self.record = load_model(folder, num_classes=0)
        self.device = resolve_device(device)
        self.vit.to(self.device).eval()
        self.sha256 = sha256(folder / TENSORS["model"])
        self.width = self.record.vit.width

    @torch.no_grad()
    def vectors(self, images: ImageSource, batch_size: int) -> Tensor:
        """(N, D) float32 on the CPU, what the head of the model would see."""
        batches = whole_images(images, self.record.data, batch_size=batch_size, device=self.device)
        return torch.cat([self.vit(batch).float().cpu() for batch in batches])


def embed(model: Path, data: str, out: Path, split: str, batch_size: int, device: str) -> Mapping[str, object]:
    """Write a parquet file, a row per image: ``image`` (its file, or file and row), ``embedding`` (list of D float32).

    ``label``, or ``labels`` where an image has several, are class indices, where there are some.
    """
    encoder = Encoder(model, device)
    whole: dict[str, Any] = {"val_share": 0.0} if split == "train" else {}
    images = open_images(data, split, pixels=encoder.record.data, **whole)
    if images.drawn_text:
        say(f"note: {images.drawn_text}")
    features = encoder.vectors(images, batch_size)
    columns = {
        # the bytes of a name that is not UTF-8 are written as escapes
        "image": pa.array([images.where(n).encode("utf-8", "backslashreplace").decode() for n in range(len(images))]),
        "embedding": pa.FixedSizeListArray.from_arrays(features.flatten().numpy(), features.shape[1]),
    }
    if images.labels is not None:
        columns["label"] = pa.array(images.labels)
    elif images.label_lists is not None:
        columns["labels"] = pa.array(images.label_lists, pa.list_(pa.int64()))
    table = pa.table(columns).replace_schema_metadata({MODEL_KEY: encoder.sha256})
    with replacing(out) as temporary:
        pq.write_table(table, temporary)
    return {"images": len(features), "width": features.shape[1], "out": str(out)}
