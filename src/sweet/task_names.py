"""The registry of tasks, apart from their code: ``sweet finetune --help`` must not import torch.

A line here and a file of the same name in ``tasks/`` (and its recipe in ``recipes/finetune/``) are all that a new one
needs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The one number that a task is judged by, as its ``evaluate`` calls it."""

    key: str
    label: str
    higher_is_better: bool = True


TASKS: dict[str, Metric] = {
    "classify": Metric("top1", "top-1, %"),
    "detect": Metric("ap_box", "box AP, %"),
    "segment": Metric("miou", "mIoU, %"),
    "generate": Metric("fid", "FID", higher_is_better=False),
}
