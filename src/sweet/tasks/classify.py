"""Image classification: cross-entropy, mixup and cutmix by timm, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor, nn

from sweet.data import ImageSource, step_generator
from sweet.errors import UserError
from sweet.recipe import FinetuneRecipe


class Classify:
    """Loss and metrics of a classifier with ``len(classes)`` outputs."""

    augment = "rrc"

    def __init__(self, classes: list[str], recipe: FinetuneRecipe | None = None) -> None:
        self.classes = classes
        self.smoothing = recipe.label_smoothing if recipe else 0.0
        self.seed = recipe.seed if recipe else 0
        self.mixup = None
        if recipe and (recipe.mixup or recipe.cutmix):
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=len(classes),
            )

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of labelled images. Raises UserError when there are none."""
        if images.classes is None or images.labels is None:
            raise UserError(f"--data {images.name}: has no class labels, and classification needs them")
        return images.classes

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, step: int) -> Tensor:
        if self.mixup is None:
            return F.cross_entropy(model(images).float(), labels, label_smoothing=self.smoothing)
        # timm's Mixup draws from numpy's global generator
        np.random.seed(step_generator(self.seed, step, 0, "mixup").initial_seed() % 2**32)
        images, targets = self.mixup(images, labels)
        return torch.sum(-targets * F.log_softmax(model(images).float(), -1), -1).mean()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
        """{"top1", "top5"} in percent, {"loss"}, {"images"}, and per-class top-1 of the classes that occur."""
        model.eval()
        device = next(model.parameters()).device
        count = len(self.classes)
        correct = torch.zeros(count, device=device)
        seen = torch.zeros(count, device=device)
        top5, loss = torch.zeros((), device=device), torch.zeros((), device=device)
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            logits = model(images).float()
            ranked = logits.topk(min(5, count), dim=1).indices
            hits = ranked == labels[:, None]
            correct.index_add_(0, labels, hits[:, 0].float())
            seen.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float))
            top5 += hits.any(1).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
        total = seen.sum()
        per_class = (100 * correct / seen).tolist()
        return {
            "top1": round((100 * correct.sum() / total).item(), 3),
            "top5": round((100 * top5 / total).item(), 3),
            "loss": round((loss / total).item(), 5),
            "images": int(total.item()),
            "per_class": {
                name: round(value, 2)
                for name, value, n in zip(self.classes, per_class, seen.tolist(), strict=True)
                if n
            },
        }
