"""One feature vector per image, in a parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sweet.data import eval_batches, open_images
from sweet.files import replacing
from sweet.models.device import resolve_device
from sweet.storage.folders import load_model
from sweet.training.device import use_plain_attention


@torch.no_grad()
def embed(model: Path, data: str, out: Path, split: str, batch_size: int, device: str) -> Mapping[str, object]:
    """Write a parquet file, a row per image: ``embedding`` (list of D float32), and ``label`` where there is one.

    An embedding is the mean of the patch tokens after the final norm, what the head of the model would see.
    """
    vit, record = load_model(model, num_classes=0)
    place, data_config = resolve_device(device), record.data
    images = open_images(data, split, pixels=data_config)
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
    features = torch.cat([vit(batch).float().cpu() for batch, _ in batches])
    columns = {"embedding": pa.FixedSizeListArray.from_arrays(features.flatten().numpy(), features.shape[1])}
    if images.labels is not None:
        columns["label"] = pa.array(images.labels)
    with replacing(out) as temporary:
        pq.write_table(pa.table(columns), temporary)
        temporary.chmod(0o644)
    return {"images": len(features), "width": features.shape[1], "out": str(out)}
