"""Validation while a model is trained: when, by which metric, which step was the best, and when it is enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sweet.recipes.schema import FinetuneRecipe
from sweet.tasks.registry import METRICS, Metric
from sweet.tasks.task import Metrics, Task


@dataclass(frozen=True)
class Validated:
    """How far a run is validated: last after ``step``; the best ``score`` so far was that of the step ``best``."""

    step: int = 0
    best: int = 0
    score: float | None = None


@dataclass(frozen=True)
class Validation:
    """``measure`` evaluates the model as it is, every ``every`` steps and after the last; the ``metric`` decides.

    The training ends after ``patience`` validations in a row without a better one; None: it does not.
    """

    measure: Callable[[], Metrics]
    metric: Metric
    every: int
    steps_per_epoch: int
    patience: int | None = None

    def due(self, step: int, steps: int, before: Validated) -> bool:
        """Whether the step, the last one of ``steps`` or not, is to be validated."""
        return step != before.step and (step % self.every == 0 or step == steps)

    def joined(self, before: Validated, step: int, score: float) -> Validated:
        """With the score of another step; of equal ones the later is the best, as it is trained longer."""
        sign = self.metric.sign
        better = before.score is None or sign * score >= sign * before.score
        return Validated(step, step, score) if better else Validated(step, before.best, before.score)

    def enough(self, so_far: Validated) -> bool:
        """Whether the training ends early."""
        waited = math.ceil((so_far.step - so_far.best) / self.every)
        return self.patience is not None and waited >= self.patience

    def score(self, metrics: Metrics) -> float:
        """By which steps are compared; the worst where nothing could be measured."""
        value = metrics.scores.get(self.metric.key)
        return -self.metric.sign * math.inf if value is None or math.isnan(value) else float(value)

    def curve(self, metrics: Metrics) -> dict[str, float]:
        """The numbers of an evaluation that make a curve: metrics of tasks and the loss."""
        known = {*METRICS, self.metric.key, "loss"}
        return {key: float(value) for key, value in metrics.scores.items() if value is not None and key in known}

    def text(self, step: int, steps: int, score: float, so_far: Validated) -> str:
        """A line for people."""
        best = f"best {self.metric.text(so_far.score or 0)} after epoch {self.epoch(so_far.best):g}"
        name, percent, _ = self.metric.label.partition(", %")
        measured = f"validation {name} {self.metric.text(score)}{' %' if percent else ''}"
        where = f"epoch {self.epoch(step):g} (step {step}/{steps})"
        return f"{where}: {measured}, {'the best so far' if so_far.best == step else best}"

    def epoch(self, step: int) -> float:
        """How many epochs the steps are."""
        return round(step / self.steps_per_epoch, 2)


def steps_between(recipe: FinetuneRecipe, task: Task, steps_per_epoch: int, train: int, val: int) -> int:
    """Steps from one validation to the next; 0: only at the end.

    ``train`` and ``val`` are numbers of images. Unless the recipe says so, one validation costs at most a third of the
    training before it: there is one each epoch, or fewer where there are more images than of training.
    """
    epochs = recipe.val_every
    if epochs is None:
        epochs = max(1, math.ceil(val / train)) if task.cheap_to_evaluate else 0
    return max(1, round(epochs * steps_per_epoch)) if epochs else 0
