"""The paper's figures, for display beside ours (``paper.yaml``)."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def paper() -> dict[str, Any]:
    text = (resources.files("sweet.results") / "paper.yaml").read_text(encoding="utf-8")
    told: dict[str, Any] = yaml.safe_load(text)
    return told


def paper_table(table: str, task: str) -> dict[str, Any] | None:
    """{title, columns, rows: {name: {metric: values}}} of the paper's table of this name, or None."""
    return next((one for one in paper()["tables"] if (one["table"], one["task"]) == (table, task)), None)
