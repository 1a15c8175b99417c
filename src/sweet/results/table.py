"""A table of results: the one place of means and averages. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sweet.models.config import ViTConfig
from sweet.tasks.registry import METRICS, TASKS, Metric, measured_by

from .paired import Mean
from .records import CellResult, ColumnSpec, Run, SourceResult, TableSpec

Cells = Mapping[tuple[str, str], CellResult]  # (arm, column)


@dataclass(frozen=True)
class Table:
    """What was measured of a table for one task, and the sources that its arms start from.

    ``spec`` names at least every arm and column of ``cells``. A column is a size, on a set of images where the table
    has several. ``files`` are those of the cells.
    """

    folder: Path
    spec: TableSpec
    task: str
    cells: Cells
    sources: Mapping[str, SourceResult]
    files: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """``protocol / table``, and the task unless it is classification."""
        return " / ".join([self.spec.protocol, self.spec.table, *([] if self.task == "classify" else [self.task])])

    @property
    def picture(self) -> str:
        """The file of its picture: ``table.png``, behind the task where the table has several."""
        return "table.png" if len({column.task for column in self.spec.columns}) < 2 else f"{self.task}-table.png"

    @cached_property
    def arms(self) -> list[str]:
        """The arms that were measured, in the order of the table."""
        return [arm.name for arm in self.spec.arms if any(arm.name == name for name, _ in self.cells)]

    @cached_property
    def _columns(self) -> dict[str, ColumnSpec]:
        return {column.name: column for column in self.spec.columns if column.task == self.task}

    @cached_property
    def columns(self) -> list[str]:
        """The columns in which something was measured, in the order of the table."""
        return [name for name in self._columns if any(name == column for _, column in self.cells)]

    def shown(self, others: Collection[str]) -> list[str]:
        """The measured columns and ``others``, in the order of the table."""
        return [name for name in self._columns if name in self.columns or name in others]

    @cached_property
    def open_columns(self) -> list[str]:
        """The columns in which nothing was measured."""
        return [name for name in self._columns if name not in self.columns]

    def column(self, name: str) -> ColumnSpec:
        """What a column is."""
        return self._columns[name]

    def makes(self, arm: str) -> list[str]:
        """The columns that the table has of an arm: those that its method can make and that are not left out."""
        left_out = {size for name, size in self.spec.impossible if name == arm}
        return [name for name, column in self._columns.items() if column.size not in left_out]

    @cached_property
    def common(self) -> list[str]:
        """The measured columns that the table has of every arm: all averages are over these.

        Arms without any column of the main one, such as a whole checkpoint beside its smaller targets, do not count.
        """
        home = {*self.makes(self.spec.main)}
        made = [{*self.makes(arm.name)} for arm in self.spec.arms]
        return [name for name in self.columns if all(name in one for one in made if one & home or not home)]

    @property
    def main(self) -> str | None:
        """The arm that the others are compared with; None where it was not measured."""
        return self.spec.main if self.spec.main in self.arms else None

    @cached_property
    def baselines(self) -> list[str]:
        """The measured arms that the main one is judged against: published baselines, in an ablation all others."""
        if self.spec.ablation:
            return [arm for arm in self.arms if arm != self.spec.main]
        return self.of_role("baseline")

    @cached_property
    def of_each_size(self) -> set[str]:
        """The arms whose sources are of one size each."""
        return {arm.name for arm in self.spec.arms if arm.of_each_size}

    def of_role(self, role: str) -> list[str]:
        """The measured arms of a role, but for the main one."""
        known = {arm.name for arm in self.spec.arms if arm.role == role}
        return [arm for arm in self.arms if arm in known and arm != self.spec.main]

    @cached_property
    def several(self) -> list[str]:
        """The columns in which some arm was measured by more than one replicate."""
        return list(dict.fromkeys(column for (_, column), cell in self.cells.items() if len(cell.runs) > 1))

    @property
    def other(self) -> str:
        """What to call one of :attr:`baselines`."""
        return "other arm" if self.spec.ablation else "baseline"

    @property
    def runs(self) -> list[Run]:
        """All runs of all cells."""
        return [run for cell in self.cells.values() for run in cell.runs]

    @cached_property
    def metrics(self) -> list[Metric]:
        """The known metrics that were measured; the one that decides comes first."""
        found = [metric for metric in METRICS.values() if any(run.value(metric.key) is not None for run in self.runs)]
        found.sort(key=lambda metric: metric != TASKS.get(self.task))
        heads = (cell.recipe.get("head") for cell in self.cells.values())
        head: Mapping[str, object] = next(filter(None, heads), {})
        return [measured_by(metric, head.get("extractor")) for metric in found]

    @cached_property
    def chance(self) -> float | None:
        """Top-1 of guessing, in %; None where there is none, or columns differ in their number of classes."""
        found = {cell.chance_top1 for cell in self.cells.values()}
        return found.pop() if len(found) == 1 else None

    def values(self, arm: str, column: str, key: str) -> dict[int, float]:
        """{seed: number} of a cell by its key, a metric's for example; empty where nothing was measured."""
        cell = self.cells.get((arm, column))
        return cell.values(key) if cell else {}

    def mean(self, arm: str, column: str, key: str) -> Mean | None:
        """Over the seeds of a cell; None where nothing was measured."""
        values = self.values(arm, column, key)
        return Mean.of(values.values()) if values else None

    def means(self, arm: str, key: str) -> dict[str, float]:
        """{column: mean over seeds} of what was measured of an arm."""
        found = {column: self.mean(arm, column, key) for column in self.columns}
        return {column: mean.value for column, mean in found.items() if mean}

    def averaged(self, arm: str) -> list[str]:
        """The columns that an arm's average is over: :attr:`common`, in a sweep all of its own, by which it chooses."""
        return [name for name in self.columns if name in self.makes(arm)] if self.spec.validation else self.common

    def average(self, means: Mapping[str, float], arm: str = "") -> float | None:
        """Of {column: value} of an arm, over :meth:`averaged`; None where one of those is missing."""
        columns = self.averaged(arm)
        if not columns or any(column not in means for column in columns):
            return None
        return sum(means[column] for column in columns) / len(columns)

    def by_seed(self, arm: str, columns: Sequence[str], key: str) -> dict[int, float]:
        """{seed: mean over ``columns``} of the seeds that were measured in all of them."""
        found = [self.values(arm, column, key) for column in columns]
        seeds = set.intersection(*(set(values) for values in found)) if found else set()
        return {seed: sum(values[seed] for values in found) / len(found) for seed in sorted(seeds)}

    def cells_of(self, arm: str) -> list[CellResult]:
        """What was measured of an arm."""
        return [cell for (name, _), cell in self.cells.items() if name == arm]

    def source(self, arm: str) -> SourceResult | None:
        """The source that an arm starts from, where it has one and its record is there."""
        names = unique(name for cell in self.cells_of(arm) for name in cell.sources)
        return next((self.sources[name] for name in names if name in self.sources), None)

    @cached_property
    def config(self) -> ViTConfig | None:
        """The shape of the main arm's source, else of another."""
        own = (self.source(arm) for arm in (self.spec.main, *self.arms))
        return next((source.vit for source in (*own, *self.sources.values()) if source), None)


def unique(values: Iterable[str | None]) -> list[str]:
    """Each value once, in their order, without None."""
    return list(dict.fromkeys(value for value in values if value is not None))
