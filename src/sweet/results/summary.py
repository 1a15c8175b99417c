"""``table.md`` and pictures of everything that was measured of a table so far, beside its results."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sweet.files import write_text
from sweet.tasks.registry import METRICS_OF

from .choices import MARK, chosen
from .compare import compare
from .files import read_tables
from .records import TableSpec
from .rows import cost_grid, score_grid
from .table import Table


@dataclass(frozen=True)
class TableSummary:
    """What was measured of a table: one :class:`Table` for each task, in the folder ``written``."""

    spec: TableSpec
    tables: tuple[Table, ...]
    failed: Collection[tuple[str, str, str]]
    written: Path

    def to_dict(self) -> dict[str, object]:
        """For ``sweet bench``; with several tasks the keys of each begin with its name."""
        result: dict[str, object] = {"table": self.spec.table, "protocol": self.spec.protocol}
        result["measured"] = sum(len(table.runs) for table in self.tables)
        several = len({column.task for column in self.spec.columns}) > 1
        for table in self.tables:
            prefix, metric = f"{table.task}_" if several else "", METRICS_OF[table.task][0]
            result[f"{prefix}chance_top1"] = table.chance
            result[f"{prefix}{metric.key}"] = score_grid(table, metric, _of(table, self.failed)).rows()
            if self.spec.validation:
                result[f"{prefix}chosen"] = [
                    {"row": row, "variant": one.arm.partition(MARK)[2], metric.key: round(abs(one.score), 3)}
                    for row, one in chosen(table).items()
                ]
            else:
                result[f"{prefix}comparison"] = compared(table)
            if self.spec.shows_costs:
                result[f"{prefix}costs"] = cost_grid(table).rows()
        return result | {"written": str(self.written)}


def summarise(out: Path, spec: TableSpec, failed: Collection[tuple[str, str, str]] = ()) -> TableSummary:
    """Write ``table.md`` and a picture for each task beside the results of a table; nothing where there are none.

    ``failed`` are (task, arm, name of the column) of cells that could not be measured: they are marked.
    """
    from .render.markdown import section
    from .render.panels import write_picture

    folder = out / spec.protocol / spec.table
    tables = read_tables(folder, spec)
    if tables:
        write_text(folder / "table.md", "\n".join(section(table, failed=_of(table, failed)) for table in tables))
    for table in tables:
        write_picture(table, folder / table.picture)
    return TableSummary(spec, tuple(tables), failed, folder)


def _of(table: Table, failed: Collection[tuple[str, str, str]]) -> set[tuple[str, str]]:
    return {(arm, column) for task, arm, column in failed if task == table.task}


def compared(table: Table) -> list[dict[str, object]]:
    """The main arm against every baseline, column by column, as numbers."""
    found = compare(table)
    if found is None:
        return []
    return [
        {
            f"{found.main} against": arm,
            "size": column,
            "difference": round(one.value, 3),
            "margin": None if math.isnan(one.margin) else round(one.margin, 3),  # of the 95 % interval
            "seeds": one.seeds,
            "verdict": one.verdict,
        }
        for arm in (*found.baselines, *found.others)
        for column, one in found.by_column(arm).items()
    ]
