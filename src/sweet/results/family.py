"""``family.json``: a family and its members as typed records, and their one reader. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator

from sweet.errors import UserError
from sweet.files import read_json
from sweet.storage.legacy import upgraded_family
from sweet.storage.ownership import FAMILY
from sweet.storage.records import PixelSize, Record, RecordedMetrics, TrainingRecord
from sweet.tasks.registry import TASKS, Metric

from .paired import Mean, sampling_interval

SAME = ("source_sha256", "task", "method", "img_size")  # in all sessions of one family


class Latency(Record):
    """Milliseconds of one image, and how they were measured."""

    ms: float
    iqr_ms: float
    protocol: dict[str, str | int]


class Member(Record):
    """One fine-tuned size: what it costs, headless, and how good it is; ``pareto`` where no other one beats it.

    Its run folder is ``<size>``, or ``<method>/<size>`` where it was initialised by another ``method`` than its family;
    the runs of further seeds lie beside it. ``seeds`` are {seed: the deciding metric} where there are several.
    """

    size: str
    method: str | None = None
    requested: str
    width: int
    params: int
    flops: int
    latency: Latency | None = None
    metrics: RecordedMetrics
    training: TrainingRecord | None = None
    seeds: dict[str, float] = Field({})
    pareto: bool = False

    @staticmethod
    def folder_of(size: str, method: str | None, seed: int | None = None) -> str:
        """Where it lies in the folder of its family; ``seed``: one of the further seeds."""
        place = size if method is None else f"{method}/{size}"
        return place if seed is None else f"{place}.seed{seed}"

    @property
    def folder(self) -> str:
        """Where it lies in the folder of its family."""
        return self.folder_of(self.size, self.method)

    @property
    def folders(self) -> list[str]:
        """Of the runs of all its seeds."""
        return [self.folder, *(self.folder_of(self.size, self.method, int(seed)) for seed in [*self.seeds][1:])]

    def quality(self, metric: Metric) -> float:
        """Its value of the metric that decides, the mean over its seeds."""
        if self.seeds:
            return self.mean.value
        value = self.metrics[metric.key]
        assert isinstance(value, int | float)
        return value

    @property
    def mean(self) -> Mean:
        """Mean and spread of the deciding metric over its seeds, of which there are several."""
        return Mean.of(self.seeds.values())

    def text(self, metric: Metric) -> str:
        """Its quality; with several seeds their spread and number too."""
        return self.mean.text(metric) if self.seeds else metric.text(self.quality(metric))

    def row(self, metric: Metric) -> Mapping[str, object]:
        """For the terminal."""
        timed = {"ms": self.latency.ms} if self.latency else {}
        shown = self.model_dump(include={"size", "requested", "params", "flops"})
        spread = {"spread": round(self.mean.spread, 3)} if self.seeds else {}
        return shown | timed | {metric.key: round(self.quality(metric), 5)} | spread | {"pareto": self.pareto}


class Family(Record):
    """Models of several sizes from one source, fine-tuned by one recipe, smallest first.

    ``baselines`` are the same sizes by other initialisers.
    """

    source: str
    source_sha256: str
    task: str
    data: str
    method: str
    img_size: PixelSize
    metric: str
    members: tuple[Member, ...] = ()
    baselines: tuple[Member, ...] = ()

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"there is no task {task!r}")
        return task

    @property
    def judge(self) -> Metric:
        """The metric that members are compared by."""
        return TASKS[self.task]

    def member(self, size: str, method: str | None = None) -> Member | None:
        """The member of a size, or its baseline by another method, where it is finished."""
        return next((one for one in self.everyone if (one.size, one.method) == (size, method)), None)

    @property
    def everyone(self) -> tuple[Member, ...]:
        """Its members and their baselines."""
        return (*self.members, *self.baselines)

    @property
    def folders(self) -> list[str]:
        """Of all its models, in the folder of the family."""
        return [name for one in self.everyone for name in one.folders]

    @property
    def compared_with(self) -> list[str]:
        """The methods of its baselines."""
        return list(dict.fromkeys(one.method for one in self.baselines if one.method is not None))

    def joined(self, member: Member) -> Self:
        """This family with another member or baseline, or with one made anew, and its Pareto front."""
        name = "members" if member.method is None else "baselines"
        others = (one for one in getattr(self, name) if (one.size, one.method) != (member.size, member.method))
        rows = sorted([*others, member], key=lambda one: (one.method or "", one.params))
        fronts = on_front(rows, self.judge) if member.method is None else [False] * len(rows)
        marked = (one.model_copy(update={"pareto": front}) for one, front in zip(rows, fronts, strict=True))
        return self.model_copy(update={name: tuple(marked)})

    @property
    def runs(self) -> str:
        """How many runs a number of this family is of, and on how many images they were measured, in words."""
        counts = sorted({max(1, len(one.seeds)) for one in self.everyone})
        number = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "1"
        several = "one run each" if number == "1" else f"means of {number} runs from the same initial weights"
        images = max((int(str(one.metrics.get("images", 0))) for one in self.everyone), default=0)
        if not images:
            return several
        return f"{several}, measured on {images:,} images{self._open(images)}"

    def _open(self, images: int) -> str:
        """How far the choice of so many images alone may move a share of right answers (95 %), in words."""
        if self.metric != "top1" or not self.members:
            return ""
        mean = sum(one.quality(self.judge) for one in self.members) / len(self.members)
        return f"; sampling error ±{sampling_interval(mean, images):.1f} points"

    def gains(self, member: Member) -> dict[str, float]:
        """{method: how much better the member is than the same size by it}, in the metric's own direction."""
        known = {method: self.member(member.size, method) for method in self.compared_with}
        return {
            method: self.judge.sign * (member.quality(self.judge) - other.quality(self.judge))
            for method, other in known.items()
            if other is not None
        }

    def rows(self) -> list[dict[str, object]]:
        """For the terminal: a row for each member, what its baselines give, and what it gains."""
        rows = []
        for member in self.members:
            row = dict(member.row(self.judge))
            for method, gain in self.gains(member).items():
                other = self.member(member.size, method)
                row |= {
                    method: None if other is None else other.quality(self.judge),
                    f"gain over {method}": round(gain, 3),
                }
            rows.append(row)
        return rows

    def sentences(self) -> list[str]:
        """What the comparison says, for people."""
        texts = []
        for method in self.compared_with:
            gains = [gain[method] for member in self.members if method in (gain := self.gains(member))]
            if gains:
                better = sum(gain > 0 for gain in gains)
                texts.append(
                    f"{self.method} is better than {method} at {better} of {len(gains)} sizes; the mean difference is "
                    f"{sum(gains) / len(gains):+.{self.judge.digits}f} {self.judge.unit} of "
                    f"{self.judge.label.removesuffix(', %')} ({self.runs})."
                )
        return texts

    def continued(self, out: Path) -> Self:
        """This family with the members that ``out`` holds. Raises UserError when that is another family."""
        if not is_family(out):
            return self
        before = read_family(out)
        for key in SAME:
            was, now = getattr(before, key), getattr(self, key)
            if was != now:
                raise UserError(f"--resume: {out} was begun with {key} {was}, now it is {now}")
        return self.model_copy(update={"members": before.members, "baselines": before.baselines})


def is_family(folder: Path) -> bool:
    """Whether a folder was written by ``sweet family``."""
    return (folder / FAMILY).is_file()


def read_family(folder: Path) -> Family:
    """Raises UserError naming a file that is none of a family."""
    path = folder / FAMILY
    try:
        return Family.model_validate(upgraded_family(read_json(path)))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path}: was not written by sweet family") from None


def on_front(rows: Sequence[Member], metric: Metric) -> list[bool]:
    """Which members no other one beats: with at most its parameters and at least its quality, one of them strictly."""
    points = [(row.params, -metric.sign * row.quality(metric)) for row in rows]
    return [not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
            for point in points]  # fmt: skip
