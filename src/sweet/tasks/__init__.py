"""What a model is fine-tuned for: one file per task, with its data form, head, loss and metrics."""

from __future__ import annotations

from .classify import Classify

TASKS = {"classify": Classify}

__all__ = ["TASKS", "Classify"]
