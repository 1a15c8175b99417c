"""What the head of a task is like, as a recipe and the record of a model say it."""

HeadKeys = dict[str, bool | int | float | str]
"""Options of a task's head; the task checks their names and types."""
