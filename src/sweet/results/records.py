"""Results of a bench as typed records: a table, its cells, their runs, and the sources they start from.

``<out>/<protocol>/<table>/table.json`` is a :class:`TableSpec`, ``<task>-<arm>-<size>[-<set>].json`` beside it a
:class:`CellResult`, and ``<out>/<protocol>/sources/<name>.json`` a :class:`SourceResult`. A folder of results says
everything that a renderer needs. Imports no torch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from sweet.storage.records import FolderRecord, Record, TrainingRecord

Role = Literal["ours", "baseline"]


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
        return f"{self.set} {self.size}" if self.set else self.size


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
    curve: list[tuple[int, float]] = []
    environment: dict[str, Any] = {}
    commit: str | None = None

    def value(self, metric: str) -> float | None:
        """A metric by its key; None where it was not measured."""
        found = getattr(self, metric, None)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


class CellResult(Record):
    """All runs of one arm at one size."""

    protocol: str = ""
    table: str = ""
    arm: str
    method: str = ""
    switches: dict[str, Any] = {}
    size: str
    task: str = "classify"
    set: str | None = None
    patch_size: int | None = None
    source: str | None = None
    data: str = ""
    recipe_hash: str | None = None
    recipe: dict[str, Any] = {}
    n_train: int | None = None
    test_set: int | None = None
    test_images: int | None = None
    classes: int | None = None
    chance_top1: float | None = None
    runs: tuple[Run, ...] = ()

    @property
    def column(self) -> str:
        return f"{self.set} {self.size}" if self.set else self.size

    def values(self, metric: str) -> dict[int, float]:
        """{seed: value} of the runs that have it: a set without small objects has no AP of them."""
        found = {run.seed: run.value(metric) for run in self.runs}
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
    order_spectrum: list[float] = []
