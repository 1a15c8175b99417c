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

Role = Literal["ours", "paper", "baseline", "conditioned", "reference"]
"""What a row is: a variant of our method, the paper's as it is written, a baseline as it was published, one whose start
was conditioned as ours is, or a line to reach that is no way to take a size from a source."""

RULES = 2  # rules of a comparison; tables of an earlier one are history


def column_name(size: str, images: str | None) -> str:
    """How a table heads the column of a size on a set of images; None: those of pre-training."""
    return f"{images} {size}" if images else size


class ArmSpec(Record):
    """A row of a table: an initialiser, its source, and what it is. ``{size}`` in a source: each size has its own."""

    name: str
    method: str
    role: Role = "baseline"
    source: str | None = None
    about: str = ""

    @property
    def of_each_size(self) -> bool:
        """Whether each size has a source of its own."""
        return self.source is not None and "{size}" in self.source


class ColumnSpec(Record):
    """A column of a table: a size on the images of one task; ``set`` names images other than those of pre-training.

    ``seeds`` is how many replicates it is to have.
    """

    size: str
    task: str = "classify"
    set: str | None = None
    img_size: int | None = None
    patch_size: int | None = None
    seeds: int | None = None

    @property
    def name(self) -> str:
        """How a table heads it."""
        return column_name(self.size, self.set)


class TableSpec(Record):
    """What a table compares, in the order in which it is shown.

    ``impossible`` are (arm, size) that a method cannot make, or that the table leaves out. ``main`` is the arm that the
    others are compared with. With ``ablation`` all arms are variants of one method, and all of them are compared with
    the main one. With ``validation`` settings were chosen by it, on training images; ``chosen_by`` are the tables that
    have chosen its own. ``version`` are the rules by which it was measured; with ``one_source`` all replicates start
    from one source.
    """

    table: str
    protocol: str
    version: int = 1
    one_source: bool = False
    validation: bool = False
    chosen_by: tuple[str, ...] = ()
    arms: tuple[ArmSpec, ...]
    columns: tuple[ColumnSpec, ...]
    main: str
    ablation: bool = False
    shows_costs: bool = False
    impossible: tuple[tuple[str, str], ...] = ()


class Run(Record):
    """One fine-tuning and its test, by one seed. Metrics of the task stand beside these keys.

    ``source`` is its name in the cache, and in the records of sources. ``code`` is the version of the training code.
    """

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
    source: str | None = None
    source_sha256: str | None = None
    code: int | None = None
    precision: str | None = None
    curve: tuple[tuple[int, float], ...] = ()
    environment: dict[str, Any] = Field({})
    commit: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _metrics_are_numbers(cls, values: Any) -> Any:
        for key in METRICS.keys() & (values.keys() if isinstance(values, Mapping) else ()):
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
    role: Role = "baseline"
    method: str = ""
    switches: dict[str, Any] = Field({})
    size: str
    task: str = "classify"
    set: str | None = None
    patch_size: int | None = None
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

    @property
    def sources(self) -> list[str]:
        """Those that its runs start from, each once."""
        return list(dict.fromkeys(run.source for run in self.runs if run.source is not None))

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
    """The ``config.json`` of a source as a bench keeps it, under its name in the cache.

    ``seed`` is the replicate that it is of, ``code`` the version of the code that learned it in ``environment``.
    """

    source: str
    seed: int = 0
    code: int = 1
    environment: dict[str, Any] = Field({})
    training: SourceTraining
    sha256: str | None = None
    order_spectrum: tuple[float, ...] = ()
