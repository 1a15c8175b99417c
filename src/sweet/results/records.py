"""Results of a bench as typed records: a table, its cells, their runs, and the sources they start from.

``<out>/<protocol>/<table>/table.json`` is a :class:`TableSpec`, ``<task>-<arm>-<size>[-<set>].json`` beside it a
:class:`CellResult`, and ``<out>/<protocol>/sources/<name>.json`` a :class:`SourceResult`. A folder of results says
everything that a renderer needs. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from sweet.storage.records import FolderRecord, Record, TrainingRecord
from sweet.tasks.registry import METRICS
from sweet.template.sizes import Size

Role = Literal["ours", "baseline"]
OUR_METHODS = ("sweet", "sweet_fitted")


def role_of(method: str) -> Role:
    """Whether an initialiser is ours or a baseline."""
    return "ours" if method in OUR_METHODS else "baseline"


def column_name(size: str, images: str | None) -> str:
    """How a table heads the column of a size on a set of images; None: those of pre-training."""
    return f"{images} {size}" if images else size


class ArmSpec(Record):
    """A row of a table: an initialiser, its source, and whether it is ours or a baseline."""

    name: str
    method: str
    role: Role
    source: str | None = None
    about: str = ""


class ColumnSpec(Record):
    """A column of a table: a size on the images of one task; ``set`` names images other than those of pre-training."""

    size: str
    task: str = "classify"
    set: str | None = None
    img_size: int | None = None
    patch_size: int | None = None

    @property
    def name(self) -> str:
        """How a table heads it."""
        return column_name(self.size, self.set)


class TableSpec(Record):
    """What a table compares, in the order in which it is shown.

    ``impossible`` are (arm, size) that a method cannot make. ``main`` is the arm that the others are compared with.
    With ``ablation`` all arms are variants of one method, and all of them are compared with the main one.
    """

    table: str
    protocol: str
    arms: tuple[ArmSpec, ...]
    columns: tuple[ColumnSpec, ...]
    main: str
    ablation: bool = False
    shows_costs: bool = False
    impossible: tuple[tuple[str, str], ...] = ()


class Run(Record):
    """One fine-tuning and its test, by one seed. Metrics of the task stand beside these keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    seed: int
    train_loss: float | None = None
    images_seen: int | None = None
    steps: int | None = None
    seconds: float | None = None
    init_seconds: float | None = None
    init_images: int | None = None
    init_mae_loss: float | None = None
    init_knn: float | None = None
    source_sha256: str | None = None
    curve: tuple[tuple[int, float], ...] = ()
    environment: dict[str, Any] = Field({})
    commit: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _metrics_are_numbers(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        for key in METRICS.keys() & values.keys():
            value = values[key]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{key} is {value!r}, expected a number")
        return values

    def value(self, key: str) -> float | None:
        """A number of the run by its key, a metric for example; None where it was not measured."""
        found: float | None = getattr(self, key, None)
        return found


class CellResult(Record):
    """All runs of one arm at one size."""

    protocol: str = ""
    table: str = ""
    arm: str
    method: str = ""
    switches: dict[str, Any] = Field({})
    size: str
    task: str = "classify"
    set: str | None = None
    patch_size: int | None = None
    source: str | None = None
    data: str = ""
    recipe_hash: str | None = None
    recipe: dict[str, Any] = Field({})
    n_train: int | None = None
    test_set: int | None = None
    test_images: int | None = None
    classes: int | None = None
    chance_top1: float | None = None
    runs: tuple[Run, ...] = ()

    @field_validator("size")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        Size.parse(value)
        return value

    @property
    def column(self) -> str:
        """How a table heads its column."""
        return column_name(self.size, self.set)

    def values(self, key: str) -> dict[int, float]:
        """{seed: number} of the runs that have it: a set without small objects has no AP of them."""
        found = {run.seed: run.value(key) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}


class SourceTraining(TrainingRecord):
    """What learning a source took, its parents included; ``teacher`` names the source that taught it."""

    steps: int = 0
    images: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    teacher: str | None = None


class SourceResult(FolderRecord):
    """The ``config.json`` of a source as a bench keeps it, under its name in the cache."""

    source: str
    training: SourceTraining
    sha256: str | None = None
    order_spectrum: tuple[float, ...] = ()
