"""What a model is fine-tuned for: one file per task, with its data form, head, loss, metrics and pictures."""

from __future__ import annotations

from importlib import import_module

from sweet.errors import UserError
from sweet.metrics import TASKS

from .task import Task

__all__ = ["Task", "task_class"]


def task_class(name: str) -> type[Task]:
    """The class of a task by its name. Raises UserError for an unknown one."""
    if name not in TASKS:
        raise UserError(f"--task {name}: unknown, expected one of {', '.join(TASKS)}")
    found: type[Task] = import_module(f"sweet.tasks.{name}").TASK
    return found
