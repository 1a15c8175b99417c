"""The numbers that the paper prints, for display beside ours (``paper.yaml``)."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml

from sweet.storage.records import Record


class PaperTable(Record):
    """One table of the paper for one task; ``rows`` are {its name of an arm: {metric: a value for each column}}."""

    table: str
    task: str
    title: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, tuple[float, ...]]]

    def means(self, metric: str) -> dict[str, dict[str, float]]:
        """{arm: {column: value}} of the arms that have the metric."""
        return {
            name: dict(zip(self.columns, row[metric], strict=True)) for name, row in self.rows.items() if metric in row
        }


class Paper(Record):
    """``label`` is how its rows are marked beside ours, ``ours`` the paper's own method."""

    label: str
    paper: str
    ours: str
    tables: tuple[PaperTable, ...]


@cache
def paper() -> Paper:
    """Everything in ``paper.yaml``."""
    text = (resources.files("sweet.results") / "paper.yaml").read_text(encoding="utf-8")
    return Paper.model_validate(yaml.safe_load(text))


def paper_table(table: str, task: str) -> PaperTable | None:
    """The paper's table of this name for a task."""
    return next((one for one in paper().tables if (one.table, one.task) == (table, task)), None)
