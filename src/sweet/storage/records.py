"""``config.json`` of a folder as typed records: the one writer and the one reader. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_serializer,
    model_validator,
)

from sweet.errors import UserError
from sweet.files import read_json
from sweet.models.config import MaeConfig, ViTConfig
from sweet.recipes.head import HeadKeys
from sweet.template.image_size import ImageSize, read_image_size, size_text
from sweet.version import VERSION

from .legacy import upgraded
from .ownership import FAMILY, STARTS

if TYPE_CHECKING:
    from sweet.recipes.schema import DataKeys

FORMAT = 1
OTHER_READERS = {"onnx": "ONNX Runtime", "architectures": "transformers"}  # of an export, by a key of its config.json
FOREIGN = {"architecture", "model_type"}  # keys of timm's and of transformers' config.json
Kind = Literal["template", "dense", "model"]
CENTRE_CROP = "short side resized, centre cropped"
PixelSize = Annotated[ImageSize, BeforeValidator(read_image_size)]
RecordedMetrics = dict[str, JsonValue]
"""What a task measures: numbers and names, and tables such as a confusion matrix."""


class Record(BaseModel):
    """A record in a JSON file; keys of a later version are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is None is left out."""
        return self.model_dump(mode="json", exclude_none=True)


class DataConfig(Record):
    """What travels with every model so that it can be used on images."""

    img_size: PixelSize
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]  # of values from 0 to 1, as std
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    value_range: tuple[float, float] | None = None  # of a file of more than 8 bits: what becomes 0 and 255
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    crop: str = CENTRE_CROP  # what of an image is looked at
    classes: list[str] | None = None
    thresholds: list[float] | None = None  # for each class: from this probability on an image has it

    @classmethod
    def of_recipe(cls, keys: DataKeys, classes: Sequence[str] | None, crop: str = CENTRE_CROP) -> DataConfig:
        """What a recipe says of its images, and the names of their classes."""
        return cls(
            img_size=keys.img_size,
            mean=keys.mean,
            std=keys.std,
            value_range=keys.value_range,
            interpolation=keys.interpolation,
            crop=crop,
            classes=None if classes is None else list(classes),
        )

    def with_channels(self, channels: int) -> DataConfig:
        """For another number of input channels: each gets the mean of the old means and of the old deviations."""
        if channels == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return self.model_copy(update={"mean": (mean,) * channels, "std": (std,) * channels})


PRECISIONS = {"no": "float32", "bf16": "bfloat16, weights in float32", "fp16": "float16, weights in float32"}


def flops_text(flops: float) -> str:
    """A number of FLOPs with the unit in which it is from 1 to 1000."""
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops / 1e6:.3g} MFLOP"


class TrainingRecord(Record):
    """What a pre-training or fine-tuning took, in images, seconds and FLOPs, all over until its last step."""

    steps: int
    images: int
    loss: float
    seconds: float
    img_per_s: float | None = None
    pflops: float | None = None
    data: str | None = None
    data_images: int | None = None
    device: str = ""
    precision: str = ""
    finished: str = ""
    best_step: int | None = None  # the one that is kept, of a run that was validated
    best_epoch: float | None = None

    def words(self) -> dict[str, str]:
        """What it took, for people: {what: value with its unit}."""
        speed = f" ({self.img_per_s:,.0f} images/s)" if self.img_per_s else ""
        found = {
            "steps": f"{self.steps:,} ({self.images:,} images seen)",
            "kept": f"the best validation, after step {self.best_step:,}" if self.best_step is not None else "",
            "time": f"{self.seconds:,.0f} s on {self.device or 'an unknown device'}{speed}",
            "numbers": PRECISIONS.get(self.precision, self.precision),
            "compute": flops_text(1e15 * self.pflops) if self.pflops else "",
            "loss at the end": f"{self.loss:.4f}",
            "finished": self.finished.partition("+")[0].replace("T", " "),
        }
        return {what: value for what, value in found.items() if value}


class HealingRecord(Record):
    """Training steps that repair a conversion to low ranks."""

    steps: int
    images: int
    pflops: float
    seconds: float
    data: str
    feature_error: float


class WeightError(Record):
    """Relative Frobenius error of the block matrices."""

    overall: float
    components: dict[str, float]
    layers: list[float]


class OriginRecord(Record):
    """Whose weights they are: the licence as its owner names it, where they come from, and the paper to cite."""

    name: str
    licence: str | None = None
    url: str | None = None
    citation: str | None = None


class ConvertedRecord(Record):
    """How a checkpoint of somebody else became this source.

    ``assumed`` is what no file said of it. The order was computed at ``order_size`` pixels.
    ``dtype`` is that of the weights where it is half precision, in torch's name. ``condition``: it is stored
    conditioned.
    """

    source: str
    source_sha256: str
    origin: OriginRecord | None = None
    assumed: tuple[str, ...] | None = None
    order_size: PixelSize | None = None
    condition: bool | None = None
    dtype: str | None = None
    metric: str
    order_images: str | None = None
    seconds: float
    error: WeightError
    feature_error: float | None = None
    healing: HealingRecord | None = None
    spectrum: dict[str, list[float]] = {}


class InitRecord(Record):
    """How a model was initialised; the switches of its method stand beside these keys.

    ``train_*`` is what a method that trains took. ``origin`` is the checkpoint that the source was converted from.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str
    images: int = 0
    seed: int = 0
    source_kind: str = ""
    source_size: str = ""
    source_sha256: str = ""
    source_data: str | None = None
    origin: OriginRecord | None = None
    train_images: int | None = None
    train_seconds: float | None = None
    train_pflops: float | None = None
    parameters: int = 0


class WidthRecord(Record):
    """The stochastic width by which a source was learned: keys of group ``width`` of its recipe."""

    mode: str
    apply: str


class FolderRecord(Record):
    """All of ``config.json``: what the folder holds and where it comes from."""

    format: int = FORMAT
    sweet: str = VERSION
    kind: Kind
    vit: ViTConfig
    mae: MaeConfig | None = None
    objective: str | None = None
    constraint: str = "none"
    ranks: tuple[int, int, int] | None = None
    absorbed: bool = False
    width: WidthRecord | None = None
    dtype: str | None = None  # of the weights of an export where that is half precision, in torch's name
    data: DataConfig
    training: TrainingRecord | None = None  # of a source of sweet that was converted, what that took
    converted: ConvertedRecord | None = None
    made: InitRecord | None = None
    task: str | None = None
    head: HeadKeys | None = None
    metrics: RecordedMetrics | None = None

    @field_serializer("vit")
    def _vit(self, vit: ViTConfig) -> dict[str, Any]:
        return vit.to_dict()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not len(self.data.mean) == len(self.data.std) == self.vit.in_chans:
            raise ValueError(
                f"{len(self.data.mean)} values of data.mean and {len(self.data.std)} of data.std for "
                f"{self.vit.in_chans} channels"
            )
        if self.data.img_size != self.vit.img_size:
            own, other = size_text(self.data.img_size), size_text(self.vit.img_size)
            raise ValueError(f"data.img_size {own} is not vit.img_size {other}")
        return self

    @property
    def of_others(self) -> bool:
        """Whether somebody else trained a source, as far as that is known: it does not say what its training took."""
        return self.training is None

    @property
    def origin(self) -> str | None:
        """The images or the checkpoint from which a source was learned: their terms go with it."""
        if self.converted is not None:
            return self.converted.source
        return self.training.data if self.training is not None else None

    @property
    def origin_record(self) -> OriginRecord | None:
        """Licence, address and citation of the checkpoint of others that this was made from, if any."""
        if self.converted is not None:
            return self.converted.origin
        return self.made.origin if self.made is not None else None

    @property
    def scores(self) -> dict[str, float]:
        """The metrics that are single numbers."""
        return numbers(self.metrics or {})


def numbers(metrics: RecordedMetrics) -> dict[str, float]:
    """Those that are single numbers."""
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def first_problem(error: ValidationError) -> str:
    """``key: what is wrong``, of the first key; of a check of several keys what is wrong alone."""
    first = error.errors()[0]
    key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def read_record(folder: Path, kinds: Sequence[str]) -> FolderRecord:
    """``config.json`` of a sweet folder of one of ``kinds``, exports for timm included.

    Raises UserError naming the folder, or the file and the key that is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    path = folder / "config.json"
    if not path.is_file():
        why = "not a sweet folder (no config.json)"
        if (folder / FAMILY).is_file():
            why = "a family; name one of its members, which are folders in it"
        elif (folder / "checkpoints").is_dir() or (folder / STARTS).is_dir():
            why = "an unfinished run (finish it with --resume)"
        raise UserError(f"{folder}: {why}")
    values = read_json(path)
    record = parse_record(values, path)
    if reader := next((name for key, name in OTHER_READERS.items() if key in values), None):
        raise UserError(f"{folder}: is for {reader}, not for sweet; name the model that it was exported from")
    if record.kind not in kinds:
        hint = "; sweet init makes one of it" if tuple(kinds) == ("model",) else ""
        hint = "; sweet convert makes one of it" if record.kind == "model" else hint
        words = [name.replace("dense", "dense source") for name in (record.kind, *kinds)]
        raise UserError(f"{folder}: is a {words[0]}, expected a {' or a '.join(words[1:])}{hint}")
    return record


def parse_record(values: Any, path: Path) -> FolderRecord:
    """The record in what was read from ``path``. Raises UserError naming file and key."""
    if isinstance(values, dict) and isinstance(values.get("sweet"), dict):
        values = values["sweet"]  # exported for timm, ONNX or transformers
    if not isinstance(values, dict) or "kind" not in values or "vit" not in values:
        foreign = isinstance(values, dict) and FOREIGN & values.keys()
        hint = "; sweet init and sweet convert take a checkpoint of timm or transformers" if foreign else ""
        raise UserError(f"{path}: not written by sweet{hint}")
    if values.get("format") != FORMAT:
        raise UserError(f"{path}: format {values.get('format')!r}, this version reads {FORMAT}")
    try:
        # Through JSON: its strict mode takes a list for a tuple but neither "3" for 3 nor true for 1.
        return FolderRecord.model_validate_json(json.dumps(upgraded(values)), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None
    except (RecursionError, UnicodeError):
        raise UserError(f"{path}: nested too deeply, or text that is not Unicode") from None
