"""Image classification: cross-entropy, mixup and cutmix by timm, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from timm.data import Mixup
from torch import Tensor, nn

from sweet.data import BatchSource, ImageSet, ImageSource, step_generator
from sweet.data.balance import ClassCounts, class_counts, class_weights
from sweet.errors import UserError
from sweet.tasks.labelled import Labelled, images_of, targets_of
from sweet.tasks.pictures import plain_text, save_figure, short
from sweet.tasks.task import EvalSettings, Metrics, Row, TrainSettings

NAMED = 40  # classes of a confusion matrix that have room for their names
COUNTED = 20  # and for their counts


class Classify(Labelled):
    """Loss and metrics of a classifier with ``len(classes)`` outputs."""

    without_effect: ClassVar[tuple[str, ...]] = ("data.scale_jitter",)
    balances: ClassVar[tuple[str, ...]] = ("weights", "sampler")
    weights: Tensor | None = None  # (K,) of the classes in the loss

    def batches(self, data: ImageSet, settings: TrainSettings) -> BatchSource:
        """As of every labelled task; the counts of classes decide the weights of the loss, where the recipe wants some.

        Raises UserError for a single class, which leaves nothing to balance.
        """
        balance = settings.recipe.optim.balance
        if balance != "none":
            labels = targets_of(data)
            said = class_counts(labels, self.classes)
            if len(labels.unique()) < 2:
                raise UserError(f"optim.balance={balance}: all images are of one class")
            if balance == "weights":
                self.weights = class_weights(labels, len(self.classes)).to(settings.device)
            self.notes.append(balance_text(balance, said, self.weights))
        return super().batches(data, settings)

    @cached_property
    def mixup(self) -> Mixup | None:
        """timm's mixup and cutmix, where the recipe wants one of them."""
        recipe = self.recipe
        if recipe is None or not (recipe.mixup or recipe.cutmix):
            return None
        return Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            label_smoothing=recipe.label_smoothing,
            num_classes=len(self.classes),
        )

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        """Cross-entropy of images (B, C, S, S) and labels (B,), mixed in pairs where the recipe says so."""
        if self.mixup is None:
            logits = model(inputs).float()
            if self.weights is None:
                return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)
            # over the images, not over their weights: a batch computed in parts has the gradient of the whole
            total = F.cross_entropy(logits, targets, self.weights, reduction="sum", label_smoothing=self.smoothing)
            return total / len(targets)
        # timm's Mixup draws from numpy's global generator
        np.random.seed(step_generator(self.seed, step, 0, "mixup").initial_seed() % 2**32)
        inputs, soft = self.mixup(inputs, targets)
        if self.weights is not None:
            soft = soft * self.weights
        return torch.sum(-soft * F.log_softmax(model(inputs).float(), -1), -1).mean()

    def evaluate(self, model: nn.Module, data: ImageSet, settings: EvalSettings) -> Metrics:
        """As :meth:`measure`, over whole images of a set."""
        return self.measure(model, images_of(data, settings))

    @torch.no_grad()
    def measure(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Metrics:
        """``top1`` and ``top5`` in percent, ``loss``, top-1 per class, and the confusion matrix."""
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
        scores = {
            "top1": round(100 * sum(right) / total, 3),
            "top5": round(100 * top5.item() / total, 3),
            "loss": round(loss.item() / total, 5),
        }
        classes = {name: round(100 * hits / n, 2) for name, hits, n in zip(self.classes, right, seen, strict=True) if n}
        return Metrics(scores, total, {"per_class": classes}, table.tolist())

    @torch.no_grad()
    def predict(
        self, model: nn.Module, images: ImageSource, settings: EvalSettings, *, top: int, out: Path | None
    ) -> list[Row]:
        """The ``top`` classes of each image with their probabilities, of those that reach the threshold."""
        if out is not None:
            raise UserError(f"--out {out}: there is nothing to draw for a classifier")
        model.eval()
        logits = torch.cat([model(batch).float() for batch, _ in images_of(images, settings)])
        best = logits.softmax(-1).topk(min(top, len(self.classes)))
        return [
            {"image": images.where(index), "class": self.classes[label], "probability": round(value, 5)}
            for index, ranked in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True))
            for value, label in zip(*ranked, strict=True)
            if value >= (settings.threshold or 0)
        ]

    @plain_text()
    def pictures(self, model: nn.Module, data: ImageSet, settings: EvalSettings, metrics: Metrics, out: Path) -> None:
        """``confusion.png``: for each true class, how many of its images were predicted as each class."""
        table = np.array(metrics.confusion)
        shares = 100 * table / table.sum(1, keepdims=True).clip(1)
        side = 2.5 + 0.3 * min(len(table), NAMED)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.add_subplot(xlabel="predicted", ylabel="true (images)")
        axes.set_title(f"top-1 {metrics.scores['top1']:.1f} % of {table.sum():,} images", fontsize=10)
        figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=100), label="% of the true class", shrink=0.7)
        if len(table) <= NAMED:
            names = [short(name) for name in self.classes]
            axes.set_xticks(range(len(table)), names, rotation=90)
            counts = table.sum(1)
            axes.set_yticks(
                range(len(table)), [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)]
            )
        if len(table) <= COUNTED:
            for (row, column), count in np.ndenumerate(table):
                if count:
                    colour = "white" if shares[row, column] > 55 else "black"
                    axes.text(column, row, f"{count}", ha="center", va="center", fontsize=7, color=colour)
        save_figure(figure, out / "confusion.png", dpi=120)


def balance_text(balance: str, counts: ClassCounts, weights: Tensor | None) -> str:
    """What a balanced training does with classes of unequal size, in one line."""
    if weights is None:
        return f"optim.balance={balance}: {counts.text()}; every class is shown as often as the others"
    used = weights[torch.tensor(counts.counts) > 0]
    return f"optim.balance={balance}: {counts.text()}; weights in the loss from {used.min():.3g} to {used.max():.3g}"


TASK = Classify
