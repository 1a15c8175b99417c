"""Multi-label classification: which of the classes an image has, any number of them; binary cross-entropy and mAP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional.classification import multilabel_average_precision

from sweet.data import BatchSource, ImageSet, ImageSource, Packed
from sweet.data.balance import class_counts
from sweet.data.label_lists import with_lists_alone
from sweet.errors import UserError
from sweet.storage.records import DataConfig
from sweet.tasks.labelled import Labelled, images_of, targets_of
from sweet.tasks.pictures import plain_text, save_figure, short
from sweet.tasks.task import EvalSettings, Metrics, Row, TrainSettings

from .thresholds import best_thresholds, counts_at

MAX_WEIGHT = 100.0  # of an image that has a rare class
NAMED = 40  # classes of a picture that have room for their names


class MultiLabel(Labelled):
    """Loss and metrics of a model with one logit for each class."""

    top: ClassVar[int] = 100
    without_effect: ClassVar[tuple[str, ...]] = ("mixup", "cutmix", "data.scale_jitter")
    balances: ClassVar[tuple[str, ...]] = ("weights",)
    weights: Tensor | None = None  # (K,) of the images that have a class, in its loss

    @staticmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of a set that says which of them each image has. Raises UserError for any other."""
        classes = with_lists_alone(images).classes
        assert classes is not None
        return classes

    def adapt(self, train: ImageSource, val: ImageSource) -> None:
        """Raises UserError for a split in which no image has a class."""
        for images in (train, val):
            if not any(images.label_lists or ()):
                raise UserError(f"--data {images.name}: no image of {images.split} has any of the classes")

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def prepare_data(self, images: ImageSource, data_config: DataConfig) -> ImageSet:
        return super().prepare_data(with_lists_alone(images), data_config)

    def batches(self, data: ImageSet, settings: TrainSettings) -> BatchSource:
        """As of every labelled task, with targets (B, K); counts decide the weights, where the recipe wants some."""
        if settings.recipe.optim.balance == "weights":
            targets = targets_of(data)
            self.weights = positive_weights(targets).to(settings.device)
            low, high = float(self.weights.min()), float(self.weights.max())
            said = class_counts(targets, self.classes).text()
            self.notes.append(f"optim.balance=weights: {said}; a label weighs {low:.3g} to {high:.3g} in the loss")
        return super().batches(data, settings)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        """Binary cross-entropy of images (B, C, S, S) and targets (B, K), the mean over images and classes."""
        soft = targets * (1 - self.smoothing) + self.smoothing / 2
        return F.binary_cross_entropy_with_logits(model(inputs).float(), soft, pos_weight=self.weights)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, data: ImageSet, settings: EvalSettings) -> Metrics:
        """As :func:`metrics_of`, at the thresholds that travel with the model, or else those best on this set."""
        alone = data if isinstance(data, Packed) else with_lists_alone(data)
        model.eval()
        device = next(model.parameters()).device
        logits = torch.cat([model(images.to(device)).float().cpu() for images, _ in images_of(alone, settings)])
        targets = targets_of(alone).cpu()
        if not targets.any():
            where = f"{data.name}: no image of {data.split}" if isinstance(data, ImageSource) else "no image"
            raise UserError(f"--data {where} has any of the classes")
        return metrics_of(logits, targets, self.classes, settings.data_config.thresholds)

    def settled(self, data_config: DataConfig, metrics: Metrics) -> DataConfig:
        """With the thresholds that were chosen on the validation images."""
        chosen = metrics.per_class["thresholds"]
        return data_config.model_copy(update={"thresholds": [chosen[name] for name in self.classes]})

    @torch.no_grad()
    def predict(
        self, model: nn.Module, images: ImageSource, settings: EvalSettings, *, top: int, out: Path | None
    ) -> list[Row]:
        """The classes of each image whose probability reaches their threshold, the surest first, at most ``top``."""
        if out is not None:
            raise UserError(f"--out {out}: there is nothing to draw for a classifier")
        model.eval()
        given = None if settings.threshold is None else [settings.threshold] * len(self.classes)
        thresholds = given or settings.data_config.thresholds or [0.5] * len(self.classes)
        rows: list[Row] = []
        found = torch.cat([model(batch).float().sigmoid().cpu() for batch, _ in images_of(images, settings)])
        for index, probabilities in enumerate(found.tolist()):
            sure = [number for number, value in enumerate(probabilities) if value >= thresholds[number]]
            for number in sorted(sure, key=lambda number: -probabilities[number])[:top]:
                rows.append(
                    {
                        "image": images.where(index),
                        "class": self.classes[number],
                        "probability": round(probabilities[number], 5),
                        "threshold": round(thresholds[number], 5),
                    }
                )
        return rows

    @plain_text()
    def pictures(self, model: nn.Module, data: ImageSet, settings: EvalSettings, metrics: Metrics, out: Path) -> None:
        """``classes.png``: average precision of each class that occurs, the best first, and the mean of guessing."""
        ranked = sorted(metrics.per_class["per_class"].items(), key=lambda pair: -pair[1])
        figure = Figure(figsize=(6, 1.5 + 0.22 * min(len(ranked), NAMED)), layout="constrained")
        mean, chance = (metrics.scores[key] or 0.0 for key in ("map", "map_by_chance"))
        axes = figure.add_subplot(xlabel="average precision, %", title=f"mAP {mean:.1f} %, by guessing {chance:.1f} %")
        axes.barh(np.arange(len(ranked)), [value for _, value in ranked])
        axes.axvline(chance, color="black", linestyle=":")
        axes.set_xlim(0, 100)
        axes.invert_yaxis()
        names = [short(name) for name, _ in ranked] if len(ranked) <= NAMED else []
        axes.set_yticks(range(len(names)), names)
        save_figure(figure, out / "classes.png", dpi=120)


def positive_weights(targets: Tensor) -> Tensor:
    """(K,) float32 of targets (N, K): images without a class for each one with it, at most ``MAX_WEIGHT``.

    1 for a class that no image has, or every one: there is nothing to balance.
    """
    there = targets.sum(0).double()
    absent = len(targets) - there
    weights = (absent / there.clamp(min=1)).clamp(max=MAX_WEIGHT)
    return torch.where((there > 0) & (absent > 0), weights, 1.0).float()


def metrics_of(logits: Tensor, targets: Tensor, classes: list[str], thresholds: list[float] | None) -> Metrics:
    """Metrics in percent of logits and targets (N, K), the means over the classes that occur.

    ``map`` is the mean of the average precision of each class (``per_class``), the area under its precision at each
    recall, without interpolation; ``map_by_chance`` is that of guessing, the mean share of the images that have a
    class. ``f1`` is the mean F1 at ``thresholds``, or, None, at those of the best F1 on this very set, which flatters;
    ``f1_micro`` the F1 of all answers together. ``loss`` is the binary cross-entropy.
    """
    probabilities = logits.double().sigmoid()
    at = (
        best_thresholds(probabilities, targets) if thresholds is None else torch.tensor(thresholds, dtype=torch.float64)
    )
    counts = counts_at(probabilities, targets, at)
    there = counts.there > 0
    precision = 100 * multilabel_average_precision(
        probabilities[:, there],
        targets[:, there].long(),
        int(there.sum()),
        average=None,
        validate_args=False,  # it refuses one class
    ).view(-1)
    f1 = counts.f1[there]
    scores = {
        "map": round(float(precision.mean()), 3),
        "map_by_chance": round(float(100 * (counts.there[there] / len(targets)).mean()), 3),
        "f1": round(float(f1.mean()), 3),
        "f1_micro": round(float(200 * counts.hits.sum() / (counts.given.sum() + counts.there.sum())), 3),
        "loss": round(float(F.binary_cross_entropy_with_logits(logits, targets)), 5),
    }
    present = [name for name, occurs in zip(classes, there.tolist(), strict=True) if occurs]
    per_class: Mapping[str, Mapping[str, float]] = {
        "per_class": dict(zip(present, (round(value, 2) for value in precision.tolist()), strict=True)),
        "thresholds": dict(zip(classes, at.tolist(), strict=True)),
    }
    notes = {} if thresholds is not None else {"thresholds_from": "the images that are measured here"}
    return Metrics(scores, len(targets), per_class, notes=notes)


TASK = MultiLabel
