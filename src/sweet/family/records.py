"""``family.json``: a family and its members as typed records, the one writer and the one reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from sweet.errors import UserError
from sweet.files import read_json
from sweet.storage.legacy import upgraded_family
from sweet.storage.records import PixelSize, Record, RecordedMetrics, TrainingRecord
from sweet.tasks.registry import TASKS, Metric

SAME = ("source_sha256", "task", "method", "img_size")  # in all sessions of one family


class Latency(Record):
    """Milliseconds of one image, and how they were measured."""

    ms: float
    iqr_ms: float
    protocol: dict[str, str | int]


class Member(Record):
    """One fine-tuned size: what it costs, headless, and how good it is; ``pareto`` where no other one beats it."""

    size: str
    requested: str
    width: int
    params: int
    flops: int
    latency: Latency | None = None
    metrics: RecordedMetrics
    training: TrainingRecord | None = None
    pareto: bool = False

    def quality(self, metric: Metric) -> float:
        """Its value of a metric."""
        value = self.metrics[metric.key]
        assert isinstance(value, int | float)
        return value

    def row(self, metric: Metric) -> Mapping[str, object]:
        """For the terminal."""
        timed = {"ms": self.latency.ms} if self.latency else {}
        shown = self.model_dump(include={"size", "requested", "params", "flops"})
        return shown | timed | {metric.key: self.quality(metric), "pareto": self.pareto}


class Family(Record):
    """Models of several sizes from one source, fine-tuned by one recipe, smallest first."""

    source: str
    source_sha256: str
    task: str
    data: str
    method: str
    img_size: PixelSize
    metric: str
    members: tuple[Member, ...] = ()

    @property
    def judge(self) -> Metric:
        """The metric that members are compared by."""
        return TASKS[self.task]

    def member(self, size: str) -> Member | None:
        """The member of a size, where it is finished."""
        return next((one for one in self.members if one.size == size), None)

    def joined(self, member: Member) -> Self:
        """This family with another member, or with a member made anew, and its Pareto front."""
        rows = sorted([*(one for one in self.members if one.size != member.size), member], key=lambda one: one.params)
        fronts = zip(rows, on_front(rows, self.judge), strict=True)
        marked = tuple(one.model_copy(update={"pareto": front}) for one, front in fronts)
        return self.model_copy(update={"members": marked})

    def continued(self, out: Path) -> Self:
        """This family with the members that ``out`` holds. Raises UserError when that is another family."""
        path = out / "family.json"
        if not path.is_file():
            return self
        try:
            before = type(self).model_validate(upgraded_family(read_json(path)))
        except (KeyError, TypeError, AttributeError, ValidationError):
            raise UserError(f"{path}: was not written by sweet family") from None
        for key in SAME:
            was, now = getattr(before, key), getattr(self, key)
            if was != now:
                raise UserError(f"--resume: {out} was begun with {key} {was}, now it is {now}")
        return self.model_copy(update={"members": before.members})


def on_front(rows: Sequence[Member], metric: Metric) -> list[bool]:
    """Which members no other one beats: with at most its parameters and at least its quality, one of them strictly."""
    sign = 1 if metric.higher_is_better else -1
    points = [(row.params, -sign * row.quality(metric)) for row in rows]
    return [not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
            for point in points]  # fmt: skip
