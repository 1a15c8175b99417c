"""Image classification: cross-entropy, mixup and cutmix by timm, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from timm.data import Mixup
from torch import Tensor, nn

from sweet.data import ImageSource, Packed, step_generator
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig

from .labelled import Labelled, images_of
from .pictures import save_figure


class Classify(Labelled):
    """Loss and metrics of a classifier with ``len(classes)`` outputs."""

    def __init__(
        self, classes: list[str], recipe: FinetuneRecipe | None = None, head: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(classes, recipe, head)
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

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        if self.mixup is None:
            return F.cross_entropy(model(inputs).float(), targets, label_smoothing=self.smoothing)
        # timm's Mixup draws from numpy's global generator
        np.random.seed(step_generator(self.seed, step, 0, "mixup").initial_seed() % 2**32)
        inputs, soft = self.mixup(inputs, targets)
        return torch.sum(-soft * F.log_softmax(model(inputs).float(), -1), -1).mean()

    def evaluate(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        *,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> dict[str, Any]:
        """As :meth:`measure`, over whole images of a set."""
        return self.measure(model, images_of(data, data_config, batch_size, device, workers))

    @torch.no_grad()
    def measure(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
        """{"top1", "top5"} in percent, {"loss"}, {"images"}, per-class top-1 of classes that occur, and {"confusion"}.

        ``confusion`` counts images: a row for each true class, a column for each predicted one.
        """
        model.eval()
        count, device = len(self.classes), next(model.parameters()).device
        confusion = torch.zeros(count * count, dtype=torch.int64, device=device)
        top5, loss = torch.zeros((), device=device), torch.zeros((), device=device)
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            logits = model(images).float()
            ranked = logits.topk(min(5, count), dim=1).indices
            confusion.index_add_(0, labels * count + ranked[:, 0], torch.ones_like(labels))
            top5 += (ranked == labels[:, None]).any(1).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
        table = confusion.view(count, count).cpu()
        seen, right, total = table.sum(1).tolist(), table.diagonal().tolist(), int(table.sum())
        return {
            "top1": round(100 * sum(right) / total, 3),
            "top5": round(100 * top5.item() / total, 3),
            "loss": round(loss.item() / total, 5),
            "images": total,
            "per_class": {
                name: round(100 * hits / n, 2) for name, hits, n in zip(self.classes, right, seen, strict=True) if n
            },
            "confusion": table.tolist(),
        }

    @torch.no_grad()
    def predict(
        self,
        model: nn.Module,
        images: ImageSource,
        data_config: DataConfig,
        *,
        top: int,
        device: torch.device,
        out: Path | None,
    ) -> list[dict[str, Any]]:
        """The ``top`` classes of each image with their probabilities."""
        if out is not None:
            raise UserError(f"--out {out}: there is nothing to draw for a classifier")
        rows, model = [], model.eval()
        for index, (batch, _) in enumerate(images_of(images, data_config, 1, device, 0)):
            best = model(batch).float().softmax(-1)[0].topk(min(top, len(self.classes)))
            rows += [
                {"image": images.where(index), "class": self.classes[label], "probability": round(value, 5)}
                for value, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        return rows

    def pictures(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        metrics: Mapping[str, Any],
        out: Path,
        device: torch.device,
    ) -> None:
        """``confusion.png``: for each true class, the share of its images that each class was seen in."""
        table = np.array(metrics["confusion"], dtype=float)
        shares = 100 * table / table.sum(1, keepdims=True).clip(1)
        side = 2.5 + 0.3 * min(len(table), 40)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.add_subplot(xlabel="seen as", ylabel="is", title=f"top-1 {metrics['top1']:.1f} %")
        figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=100), label="%", shrink=0.7)
        if len(table) <= 40:
            axes.set_xticks(range(len(table)), self.classes, rotation=90)
            axes.set_yticks(range(len(table)), self.classes)
        save_figure(figure, out / "confusion.png", dpi=120)


TASK = Classify
