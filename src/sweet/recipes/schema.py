"""What a training run is configured by: every key, its type, its range and its default.

A recipe is a YAML file (bundled ones lie in ``recipes/``) plus ``key=value`` overrides. Reading one never
imports torch, so that a typing error is reported at once. The reader is in ``loader.py``.
"""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Annotated, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from sweet.models.config import LIMITS, MAX_DECODER_WIDTH, MAX_GRID
from sweet.template.image_size import ImageSize, read_image_size, sides, size_text, whole_patches

from .head import HeadKeys

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
BatchSize = Annotated[int, Field(ge=1, le=2**20)]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "swanlab", "comet_ml", "clearml", "dvclive", "aim"]
Channels = Annotated[tuple[Share, ...], Field(min_length=1)]  # of values from 0 to 1


def _refuse(message: str, *keys: str) -> NoReturn:
    """Fail a check of several keys together; ``keys`` (full paths) say which lines are meant."""
    # The message goes in as a value, never as the template itself: a brace in it would be read as a field.
    raise PydanticCustomError("recipe", "{message}", {"message": message, "keys": keys})


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        _refuse(f"should be auto, cpu, cuda, cuda:N or mps, got {name!r}")
    return name


def _image_size(value: object) -> ImageSize:
    try:
        return read_image_size(value)
    except ValueError as problem:
        _refuse(str(problem))


ImageSizeKey = Annotated[ImageSize, BeforeValidator(_image_size)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class TrainKeys(_Keys):
    """The keys that every training verb takes at top level."""

    seed: Seed = 0
    epochs: Annotated[float, Field(gt=0, le=1e9)]
    max_steps: Count | None = None  # shortens the schedule: warm-up and decay fit into these steps
    batch_size: BatchSize  # images per optimiser step, over all devices and accumulated micro-batches
    lr: Positive  # the peak, absolute: not scaled by the batch size
    checkpoint_every: Count  # optimiser steps
    device: Annotated[str, AfterValidator(_device)] = "auto"
    workers: Annotated[int, Field(ge=0, le=1024)] = 2  # processes that decode images; packed images need none
    log_with: tuple[Tracker, ...] = (
        "tensorboard",
    )  # besides metrics.jsonl; what is installed of accelerate's trackers


def without_path(spec: str) -> str:
    """A data source as it may be published: its reader and last folder, not where it lies on this machine."""
    reader, _, place = spec.partition(":")
    if reader in ("hub", "stream"):  # OWNER/NAME is public, and another owner's is another set
        return spec
    name = PureWindowsPath(place).name if "\\" in place else Path(place).name
    return f"{reader}:{name}" if "/" in place or "\\" in place else spec


class DataKeys(_Keys):
    """Where images come from and how they are cropped and normalised."""

    source: str | None = None
    train_split: str = "train"
    val_split: str | None = None
    img_size: ImageSizeKey = 32  # pixels; [height, width] where they differ
    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)
    value_range: tuple[float, float] | None = None  # values of a file that become 0 and 255, of more than 8 bits
    crop_scale: tuple[Positive, Positive] = (0.2, 1.0)
    hflip: Share = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    on_error: Literal["fail", "skip"] = "fail"  # what an image that cannot be read does to a training
    max_skipped: Share = 0.001  # of the images, and one at least, may be skipped
    limit: Count | None = None  # the first N images after the seeded shuffle
    labels: Count | None = None  # labelled training images, the same number of each class
    label_seed: Seed = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.crop_scale
        if not low <= high <= 1:
            _refuse(f"should rise and end at most at 1, got [{low:g}, {high:g}]", "data.crop_scale")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            _refuse(f"should rise, got {list(self.value_range)}", "data.value_range")
        if len(self.mean) != len(self.std):
            _refuse(f"{len(self.std)} values for {len(self.mean)} values of data.mean", "data.std", "data.mean")
        if min(self.std) <= 0:
            _refuse(f"should be above 0, got {list(self.std)}", "data.std")
        return self


class FinetuneDataKeys(DataKeys):
    """Besides: how training images are augmented."""

    held_out: Count | None = None  # so many training images, as many of each class, take the place of val_split
    augment: Literal["rrc", "crop", "flip", "none"] = "rrc"  # random resized crop, or shift a little and flip, or flip
    scale_jitter: tuple[Positive, Positive] = (0.5, 2.0)  # long side of a resized scene, as a multiple of img_size

    @model_validator(mode="after")
    def _check_jitter(self) -> Self:
        low, high = self.scale_jitter
        if low > high:
            _refuse(f"should rise, got [{low:g}, {high:g}]", "data.scale_jitter")
        return self


class ModelKeys(_Keys):
    """The encoder: family ``eva`` is SwiGLU, RMSNorm, RoPE; ``vit`` is GELU, LayerNorm, sine positions."""

    family: Literal["eva", "vit"] = "eva"
    depth: Annotated[int, Field(ge=1, le=LIMITS["depth"])]
    heads: Annotated[int, Field(ge=1, le=LIMITS["heads"])]
    head_dim: Annotated[int, Field(ge=2, le=LIMITS["head_dim"], multiple_of=2)]
    patch_size: Annotated[int, Field(ge=1, le=LIMITS["patch_size"])]
    in_chans: Annotated[int, Field(ge=1, le=LIMITS["in_chans"])] = 3
    rope_theta: Positive | None = None  # None: 100 for grids up to 16x16, 10000 above
    norm_gain: bool = True

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.heads * self.head_dim


class TemplateKeys(_Keys):
    """How the slices of the encoder come from shared parameters; ``none`` learns a dense source.

    A Tucker template is learned as its factors (the paper), or otherwise and factored at the end without loss:
    ``whole``, as the slices themselves, or as ``tiles``, sums of Kronecker products.
    """

    constraint: Literal["tucker", "none", "linear", "kronecker"] = "tucker"
    learn: Literal["factored", "whole", "tiles"] = "factored"  # of tucker
    ranks: tuple[Count, Count, Count] | None = None  # None: 4 L, D, D, unless factored all; kronecker: as many numbers
    tile: Count | None = None  # channels of a Kronecker tile; None: three heads, or one where three do not divide
    lr_x: NonNegative = 1.0  # multipliers of lr; a Kronecker's scalers are its X
    lr_u: NonNegative = 1.0  # with lr_v: both 0 at ranks r1, D, D leave U and V out, a third faster to rebuild
    lr_v: NonNegative = 1.0
    order_images: Count = 1024  # images from which the principal order is computed at the end

    @property
    def trained(self) -> str:
        """The constraint under which the weights are learned."""
        if self.constraint != "tucker" or self.learn == "factored":
            return self.constraint
        return "none" if self.learn == "whole" else "kronecker"

    @property
    def factored_at_end(self) -> bool:
        """Whether they are factored at the end, to all ranks."""
        return self.trained != self.constraint


class WidthKeys(_Keys):
    """Width-wise stochastic scaling (Eq. 7-8)."""

    mode: Literal["none", "independent", "shared", "sandwich"] = "none"
    apply: Literal["mask", "slice"] = "mask"  # to the matrices alone (the paper), or to all that has a width
    start: Share = 0.0  # share of the training before it sets in
    full_probability: Share = 0.5
    min_heads: Count = 3


class DepthKeys(_Keys):
    """Stochastic scaling in depth: a step trains evenly spaced or the first blocks, as a shallower target has them."""

    mode: Literal["none", "even", "first"] = "none"
    start: Share = 0.0  # share of the training before it sets in
    full_probability: Share = 0.5
    min_blocks: Count = 3


class MaeKeys(_Keys):
    """What is masked, and the decoder that predicts it (He et al., arXiv 2111.06377)."""

    mask_ratio: OpenShare = 0.75
    norm_pix: bool = True
    decoder_width: Annotated[int, Field(ge=1, le=MAX_DECODER_WIDTH)]
    decoder_depth: Annotated[int, Field(ge=1, le=LIMITS["depth"])]
    decoder_head_dim: Annotated[int, Field(ge=2, le=LIMITS["head_dim"], multiple_of=2)]


class OptimKeys(_Keys):
    """AdamW, linear warm-up, then half a cosine down to ``min_lr`` or steps down at ``milestones``."""

    name: Literal["adamw", "muon"] = "adamw"  # muon: orthogonal steps of matrices, AdamW's for the rest; fine-tuning
    weight_decay: NonNegative = 0.05
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95)
    warmup: ShareBelowOne = 0.1  # share of the steps
    milestones: tuple[OpenShare, ...] | None = None  # shares of the steps where lr falls tenfold, not by a cosine
    min_lr: NonNegative = 0.0
    clip: Positive | None = 1.0  # gradient norm
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    accumulate: Count = 1  # micro-batches in which one batch is computed
    compile: bool | Literal["auto"] = False  # faster steps after some minutes' start; auto: in long trainings


class FinetuneOptimKeys(OptimKeys):
    """Besides: ``layer_decay``, the factor between the learning rates of a block and of the one after it."""

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    balance: Literal["none", "weights", "sampler"] = "none"  # of classes: rare ones weigh more, or are shown more often


class PretrainRecipe(TrainKeys):
    """Everything that ``sweet pretrain`` needs."""

    name: str = "custom"
    init_from: str | None = None  # a template folder to continue from
    objective: Literal["mae", "supervised"] = "mae"
    teacher: str | None = None  # of objective supervised: a classifier whose answers are learned besides the labels
    data: DataKeys = DataKeys()
    model: ModelKeys
    template: TemplateKeys = TemplateKeys()
    width: WidthKeys = WidthKeys()
    depth: DepthKeys = DepthKeys()
    mae: MaeKeys
    optim: OptimKeys = OptimKeys()

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_optim(self.batch_size, self.lr, self.optim)
        _check_model(self.model, self.data)
        _check_template(self.model, self.template, self.width)
        if self.depth.mode != "none" and self.depth.min_blocks > self.model.depth:
            problem = f"{self.depth.min_blocks} is more than model.depth {self.model.depth}"
            _refuse(problem, "depth.min_blocks", "model.depth")
        _check_mae(self.model, self.data, self.mae)
        if self.optim.name != "adamw":
            _refuse("is for fine-tuning, a template learns by adamw", "optim.name")
        for key, value in (("teacher", self.teacher), ("data.labels", self.data.labels)):
            if self.objective == "mae" and value is not None:
                _refuse("has a meaning only with objective=supervised", key, "objective")
        if self.data.val_split is not None:
            _refuse("has a meaning only in a fine-tuning", "data.val_split")
        return self


class FinetuneRecipe(TrainKeys):
    """Everything that ``sweet finetune`` needs besides the model and the task."""

    epochs: Annotated[float, Field(gt=0, le=1e9)] = 30
    batch_size: BatchSize = 64
    lr: Positive = 1e-3
    checkpoint_every: Count = 500
    data: FinetuneDataKeys = FinetuneDataKeys()
    optim: FinetuneOptimKeys = FinetuneOptimKeys()
    drop_path: ShareBelowOne = 0.0
    label_smoothing: ShareBelowOne = 0.1
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    ema: OpenShare | None = None  # decay of the averaged weights
    # epochs between validations, of which the best is kept; 0: none but the last; None: one, or what costs little
    val_every: NonNegative | None = None
    patience: Count | None = None  # validations without a better one after which the training ends
    probe: bool = False  # train the head only
    head: HeadKeys = {}  # what the task's head is like; each task knows its own keys

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_optim(self.batch_size, self.lr, self.optim)
        micro_batch = self.batch_size // self.optim.accumulate
        if (self.mixup or self.cutmix) and micro_batch % 2:
            _refuse(f"{micro_batch} images at a time cannot be mixed in pairs", "batch_size", "optim.accumulate")
        return self


def _check_optim(batch_size: int, lr: float, optim: OptimKeys) -> None:
    if batch_size % optim.accumulate:
        problem = f"batch_size {batch_size} cannot be computed in {optim.accumulate} equal parts"
        _refuse(problem, "optim.accumulate", "batch_size")
    if optim.min_lr > lr:
        _refuse(f"{optim.min_lr:g} is above the peak lr {lr:g}", "optim.min_lr", "lr")


def _check_model(model: ModelKeys, data: DataKeys) -> None:
    if model.family == "eva" and model.head_dim % 4:
        # RoPE rotates pairs of channels, half of the pairs by the row and half by the column.
        _refuse(f"should be a multiple of 4 for RoPE, got {model.head_dim}", "model.head_dim")
    if model.width % 4:
        problem = f"width {model.heads} x {model.head_dim} should be a multiple of 4 for sine positions"
        _refuse(problem, "model.head_dim", "model.heads")
    if not whole_patches(data.img_size, model.patch_size):
        problem = f"img_size {size_text(data.img_size)} is not a multiple of patch_size {model.patch_size}"
        _refuse(problem, "data.img_size", "model.patch_size")
    longest = max(sides(data.img_size))
    if longest // model.patch_size > MAX_GRID:
        problem = f"more than {MAX_GRID} patches of {model.patch_size} px along a side of {longest} px"
        _refuse(problem, "data.img_size", "model.patch_size")
    if len(data.mean) != model.in_chans:
        _refuse(f"{len(data.mean)} values for model.in_chans {model.in_chans}", "data.mean", "model.in_chans")


def _check_template(model: ModelKeys, template: TemplateKeys, width: WidthKeys) -> None:
    full = (12 * model.depth, model.width, model.width)
    if template.factored_at_end and template.ranks is not None and template.ranks != full:
        _refuse(f"{template.learn} has full ranks; for others say factored", "template.learn", "template.ranks")
    limits = zip(template.ranks or (), ("12 x depth", "width", "width"), full, strict=False)
    for position, (rank, name, limit) in enumerate(limits, 1):
        if rank > limit:
            shape = ("model.depth", "model.heads", "model.head_dim")
            _refuse(f"rank {position} is {rank}, more than {name} = {limit}", "template.ranks", *shape)
    if template.tile is not None and (template.tile % model.head_dim or model.width % template.tile):
        problem = f"{template.tile} should be a multiple of head_dim {model.head_dim} that divides width {model.width}"
        _refuse(problem, "template.tile", "model.heads", "model.head_dim")
    if width.mode != "none" and width.min_heads > model.heads:
        _refuse(f"{width.min_heads} is more than model.heads {model.heads}", "width.min_heads", "model.heads")


def _check_mae(model: ModelKeys, data: DataKeys, mae: MaeKeys) -> None:
    if mae.decoder_width % mae.decoder_head_dim:
        problem = f"{mae.decoder_width} is not a multiple of decoder_head_dim {mae.decoder_head_dim}"
        _refuse(problem, "mae.decoder_width", "mae.decoder_head_dim")
    if model.family == "eva" and mae.decoder_head_dim % 4:
        _refuse(f"should be a multiple of 4 for RoPE, got {mae.decoder_head_dim}", "mae.decoder_head_dim")
    if mae.decoder_width % 4:
        _refuse(f"should be a multiple of 4 for sine positions, got {mae.decoder_width}", "mae.decoder_width")
    height, width = sides(data.img_size)
    tokens = (height // model.patch_size) * (width // model.patch_size)
    kept = int(tokens * (1 - mae.mask_ratio))
    if not 0 < kept < tokens:
        problem = f"{mae.mask_ratio:g} leaves {kept} of {tokens} patches visible"
        _refuse(problem, "mae.mask_ratio", "data.img_size", "model.patch_size")
