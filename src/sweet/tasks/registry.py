"""The tasks and the metrics that they are judged by, apart from their code: ``sweet finetune --help`` must not import
torch.

A new task is a folder of ``tasks/`` in which a module defines a class ``TASK``, and one entry of :data:`ENTRIES`. Where
``recipes/finetune/NAME.yaml`` exists, it is the recipe that the task is fine-tuned by unless another is named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from sweet.errors import UserError

if TYPE_CHECKING:
    from .task import Task


@dataclass(frozen=True)
class Metric:
    """One number of a run: its key there, how it is called and written, and which direction is better."""

    key: str
    label: str
    higher_is_better: bool = True
    digits: int = 2
    unit: str = "points"  # of a difference, in a sentence

    @property
    def sign(self) -> int:
        """1 or -1: what a value or a difference is multiplied with so that higher is better."""
        return 1 if self.higher_is_better else -1

    def text(self, value: float) -> str:
        """The value with the metric's number of digits."""
        return f"{value:.{self.digits}f}"


@dataclass(frozen=True)
class TaskEntry:
    """The module that defines a task, below ``sweet.tasks``, and what the task reports; the first metric decides."""

    module: str
    metrics: tuple[Metric, ...]


ENTRIES: dict[str, TaskEntry] = {
    "classify": TaskEntry("classification.classify", (Metric("top1", "top-1, %"), Metric("top5", "top-5, %"))),
    "detect": TaskEntry(
        "detection.detect",
        (
            Metric("ap_box", "box AP, %"),
            Metric("ap_box50", "box AP50, %"),
            *(Metric(f"ap_box_{size}", f"box AP of {size} objects, %") for size in ("small", "medium", "large")),
            Metric("ap_mask", "mask AP, %"),
            Metric("ap_mask50", "mask AP50, %"),
            *(Metric(f"ap_mask_{size}", f"mask AP of {size} objects, %") for size in ("small", "medium", "large")),
        ),
    ),
    "segment": TaskEntry("segmentation.segment", (Metric("miou", "mIoU, %"), Metric("macc", "mAcc, %"))),
    "generate": TaskEntry(
        "generation.generate",
        (
            Metric("fid", "FID-shapes32", higher_is_better=False, unit="FID-shapes32"),
            Metric("is", "IS-shapes32", unit="IS-shapes32"),
        ),
    ),
    "multilabel": TaskEntry(
        "multilabel.multilabel", (Metric("map", "mAP, %"), Metric("f1", "F1, mean over classes, %"))
    ),
}
OF_ANY_TASK = (
    Metric("test_loss", "held-out loss", higher_is_better=False, digits=4, unit="nats"),
    Metric("init_mae_loss", "MAE loss before fine-tuning", higher_is_better=False, digits=4, unit="of MAE loss"),
    Metric("init_knn", "k-NN before fine-tuning, %"),
)
METRICS_OF: dict[str, tuple[Metric, ...]] = {name: entry.metrics for name, entry in ENTRIES.items()}
TASKS: dict[str, Metric] = {name: metrics[0] for name, metrics in METRICS_OF.items()}  # the metric that decides
METRICS: dict[str, Metric] = {
    metric.key: metric for metrics in (*METRICS_OF.values(), OF_ANY_TASK) for metric in metrics
}


def measured_by(metric: Metric, extractor: object) -> Metric:
    """A metric of features under the name of what extracted them: ``FID`` alone is that of Inception's features."""
    if metric.key not in ("fid", "is") or not isinstance(extractor, str):
        return metric
    name = extractor.partition(" ")[0]  # behind it a checksum
    label = metric.label.partition("-")[0] + ("" if name == "inception" else f"-{name}")
    return replace(metric, label=label, unit=label)


def task_class(name: str) -> type[Task]:
    """The class of a task by its name. Raises UserError for an unknown one."""
    if name not in ENTRIES:
        raise UserError(f"--task {name}: unknown, expected one of {', '.join(ENTRIES)}")
    found: type[Task] = import_module(f"sweet.tasks.{ENTRIES[name].module}").TASK
    return found
