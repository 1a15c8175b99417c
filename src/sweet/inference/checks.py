"""How good a model is before it is fine-tuned: its held-out MAE loss, and k-nearest neighbours in its features.

Both compute in float32 unless they are called under autocast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sweet.data import ImageSource, Packed, step_generator, whole_images
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import reconstruct, sincos
from sweet.storage.records import DataConfig

BATCH = 256


@torch.no_grad()
def mae_loss(
    weights: Mapping[str, Tensor],
    config: ViTConfig,
    mae: MaeConfig,
    data: ImageSource | Packed,
    data_config: DataConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> float | None:
    """Mean MAE loss over whole images, one mask each, drawn by ``seed``; None where ``weights`` have no decoder.

    ``data_config`` says how the images are normalised.
    """
    if "decoder.pred.weight" not in weights:
        return None
    here = {name: value.to(device) for name, value in weights.items()}
    positions = sincos(config.grid, mae.decoder_width).to(device)
    noise = torch.rand(len(data), config.patches, generator=step_generator(seed, 0, 0, "held-out masks"))
    batches = whole_images(data, data_config, batch_size=BATCH, device=device)
    total = 0.0
    for images, masks in zip(batches, noise.split(BATCH), strict=True):
        total += reconstruct(here, images, masks.to(device), config, mae, positions).loss.item() * len(images)
    return total / len(data)


@torch.no_grad()
def knn(
    vit: Any,
    train: Iterable[tuple[Tensor, Tensor]],
    test: Iterable[tuple[Tensor, Tensor]],
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> float:
    """Top-1 in percent of weighted k nearest neighbours, by DINO's rule (Caron et al., ICCV 2021, arXiv 2104.14294).

    Each of the ``k`` training images most alike votes for its class with exp(cosine / temperature). ``train`` and
    ``test`` are batches of images and labels; features are what the head of ``vit`` would see, the mean of the patch
    tokens after the final norm. Leaves ``vit`` on ``device`` and in eval mode.
    """
    vit.to(device).eval()

    def features(images: Tensor) -> Tensor:
        pooled = vit.forward_head(vit.forward_features(images.to(device)), pre_logits=True)
        return F.normalize(pooled.float(), dim=-1)

    known = [(features(images), labels) for images, labels in train]
    keys, classes = torch.cat([f for f, _ in known]), torch.cat([labels for _, labels in known]).to(device)
    right = seen = 0
    for images, labels in test:
        alike, nearest = similarity(features(images), keys).topk(min(k, len(keys)))
        votes = alike.new_zeros(len(labels), int(classes.max()) + 1)
        votes.scatter_add_(1, classes[nearest], (alike / temperature).exp())
        right += int((votes.argmax(1) == labels.to(device)).sum())
        seen += len(labels)
    return 100 * right / seen


def similarity(queries: Tensor, keys: Tensor) -> Tensor:
    """Cosines (n, m) of unit vectors, in full precision: in bf16 neighbours would tie."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ keys.t()
