"""What a cell can be measured by: how a metric is called, and which direction is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sweet.task_names import TASKS


@dataclass(frozen=True)
class Metric:
    label: str
    higher: bool = True
    digits: int = 2
    short: str = "points"  # the unit of a difference, in a sentence


METRICS = {
    "top1": Metric("top-1, %"),
    "top5": Metric("top-5, %"),
    "ap_box": Metric("box AP"),
    "ap_box_small": Metric("box AP, small"),
    "ap_box_medium": Metric("box AP, medium"),
    "ap_box_large": Metric("box AP, large"),
    "ap_mask": Metric("mask AP"),
    "ap_mask_small": Metric("mask AP, small"),
    "ap_mask_medium": Metric("mask AP, medium"),
    "ap_mask_large": Metric("mask AP, large"),
    "miou": Metric("mIoU, %"),
    "macc": Metric("mAcc, %"),
    "fid": Metric("FID", higher=False, short="FID"),
    "is": Metric("Inception score", short="IS"),
    "test_loss": Metric("held-out loss", higher=False, digits=4, short="nats"),
    "init_mae_loss": Metric("MAE loss before fine-tuning", higher=False, digits=4, short="of MAE loss"),
    "init_knn": Metric("k-NN before fine-tuning, %"),
}
# What each task is decided by. The others of a cell's metrics are columns of their own.
PRIMARY = {name: metric.key for name, metric in TASKS.items()}


def metrics_of(task: str, found: Iterable[str]) -> list[str]:
    """The known metrics among ``found``, the one that decides ``task`` first, else in the order above."""
    there = [name for name in METRICS if name in set(found)]
    first = PRIMARY.get(task)
    return sorted(there, key=lambda name: name != first)


def number(value: float, metric: str) -> str:
    return f"{value:.{METRICS[metric].digits}f}"
