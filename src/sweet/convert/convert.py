"""``sweet convert``: a Vision Transformer that somebody trained becomes a template."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sweet.console import say, warn
from sweet.data import open_images
from sweet.errors import UserError
from sweet.models.condition import conditioned
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.device import resolve_device
from sweet.models.mae import source_from_state
from sweet.models.moments import compute_order, moments_of
from sweet.models.resample import Sized, at_image_size
from sweet.recipes.loader import as_yaml
from sweet.recipes.schema import without_path
from sweet.storage.cards import converted_card
from sweet.storage.folders import StoredSource, in_type, source_tensors
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import ConvertedRecord, FolderRecord, HealingRecord
from sweet.template.fold import folded
from sweet.template.hosvd import hosvd_of
from sweet.template.image_size import ImageSize
from sweet.template.order import Order
from sweet.template.sizes import Ranks
from sweet.template.source import Source
from sweet.template.target import absorb

from .bare_file import HINT
from .checkpoints import Checkpoint
from .heal import heal, healing_cost, own_decoder
from .measure import COMPARED, feature_error, second_moment, slice_errors
from .order_images import OrderImages, note_size
from .read import Hints, read

FAR = 0.5  # relative error of features from which on little of a checkpoint is left
METRICS = ("activations", "weights")
DTYPES = ("float32", "source")


@dataclass(frozen=True)
class ConvertOptions:
    """How a checkpoint is converted.

    ``ranks``, or the ranks that keep a share of ``energy``, or all: then nothing is lost. ``data`` are images for the
    principal order and for the metric ``activations``, ``images`` how many, seen at ``img_size`` pixels (default: the
    checkpoint's, at most 224); without them synthetic scenes serve, less well. ``heads``, ``like``, ``weights``,
    ``mean`` and ``std`` as in :class:`Hints`. ``heal_steps`` of masked autoencoding on ``data``, at peak rate
    ``heal_lr``, restore some of what low ranks have lost. ``dtype`` source writes weights as exact as the checkpoint's:
    half the size where it has half precision, rounded once more. ``condition``: store it in the coordinates that Adam
    learns fastest from (:mod:`sweet.models.condition`), for targets in prefix order and other methods; principal order
    sets these for each target anyway. Raises UserError for options that contradict each other or are out of range.
    """

    ranks: Sequence[int] | None = None
    energy: float | None = None
    metric: str = "activations"
    data: str | None = None
    images: int = 512
    img_size: ImageSize | None = None
    heads: int | None = None
    like: str | None = None
    weights: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    heal_steps: int = 0
    heal_lr: float = 1e-3
    dtype: str = "float32"
    condition: bool = False
    device: str = "auto"

    def check_images(self) -> None:
        """Raises UserError for images or a device that are not there, before a checkpoint is read or downloaded."""
        resolve_device(self.device)
        if self.data is not None:
            open_images(self.data, "train", val_share=0.0)

    @property
    def hints(self) -> Hints:
        """What the user says of the checkpoint."""
        return Hints(self.heads, self.like, self.weights, self.mean, self.std)

    def __post_init__(self) -> None:
        if self.ranks is not None and self.energy is not None:
            raise UserError("--ranks and --energy exclude each other")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise UserError(f"--energy {self.energy}: expected a share above 0, at most 1")
        if self.metric not in METRICS:
            raise UserError(f"--metric {self.metric}: expected one of {', '.join(METRICS)}")
        if self.dtype not in DTYPES:
            raise UserError(f"--dtype {self.dtype}: expected one of {', '.join(DTYPES)}")
        if self.heal_steps and self.data is None:
            raise UserError(f"--heal {self.heal_steps}: learns from images; name some with --data")
        if not self.heal_steps and self.heal_lr != ConvertOptions.heal_lr:
            raise UserError(f"--heal-lr {self.heal_lr:g}: is the rate of --heal STEPS")
        if not 0 < self.heal_lr < math.inf:
            raise UserError(f"--heal-lr {self.heal_lr:g}: should be above 0")


def convert(source: str, out: Path, *, run: Path | None = None, **options: Any) -> dict[str, object]:
    """Write a template folder made from whatever :func:`read` understands.

    ``options`` are those of :class:`ConvertOptions`; the loss curve of healing goes to the folder ``run``. Returns a
    summary. Raises UserError for what cannot be read or expressed.
    """
    chosen = ConvertOptions(**options)
    chosen.check_images()
    checkpoint, order = read(source, chosen.hints)
    note_size(checkpoint, chosen.img_size)
    return convert_checkpoint(checkpoint, order, out, chosen, run=run)


def convert_checkpoint(
    checkpoint: Checkpoint, order: Order | None, out: Path, options: ConvertOptions, *, run: Path | None = None
) -> dict[str, object]:
    """Write a template folder made from a checkpoint in memory; ``order`` is its own, where it has one."""
    began = time.perf_counter()
    work = prepare(checkpoint, order, options)
    made = work.heal(work.factor(), run)
    template = absorb(made.template)
    record = FolderRecord(
        kind="template",
        vit=work.config,
        mae=made.mae,
        constraint="tucker",
        ranks=made.ranks,
        width=work.checkpoint.width,
        absorbed=template.order is not None and template.order.absorbed,
        data=work.checkpoint.data,
        training=work.checkpoint.training,
        converted=made.record.model_copy(update={"seconds": round(time.perf_counter() - began, 1)}),
    )
    tensors = in_type(source_tensors(template), work.dtype)
    write_folder(out, (TENSORS["template"], tensors), record, work.recipe(made), converted_card(record))
    lost = (made.record.healing or made.record).feature_error
    if lost is not None and lost > FAR:
        less = " without condition=true" if options.condition else ""
        warn(f"features {lost:.0%} off those of {checkpoint.name}; higher ranks{less} keep more, --heal regains some")
    return summary(record, out)


@dataclass(frozen=True)
class Converted:
    """A template, its ranks, the decoder's shape where it has one, and how it was made."""

    template: Source
    ranks: Ranks
    mae: MaeConfig | None
    record: ConvertedRecord


@dataclass(frozen=True)
class Conversion:
    """Everything that one conversion works on.

    ``dense`` is the checkpoint with its norm gains folded, or conditioned, ``seen`` the same for the image size of the
    order; ``images`` are batches for it. ``ranks`` None: those that keep the options' share of energy.
    """

    options: ConvertOptions
    checkpoint: Checkpoint
    dense: Source
    seen: Sized
    order: Order | None
    images: OrderImages | None
    ranks: Ranks | None
    device: torch.device

    @property
    def config(self) -> ViTConfig:
        """The encoder's shape."""
        return self.checkpoint.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights that are written."""
        return self.checkpoint.dtype if self.options.dtype == "source" else torch.float32

    def factor(self) -> Converted:
        """The template of the chosen ranks; a loss is measured in activations where there is an order."""
        options, order, dense = self.options, self.order, self.dense
        weighted = options.metric == "activations" and order is not None and self.ranks != _full(self.config)
        found = hosvd_of(dense, metric=second_moment(order) if order and weighted else None)
        ranks = self.ranks or found.ranks(options.energy or 1.0)
        template = replace(dense, core=found.tucker(ranks), order=order)
        spectra = zip("xuv", found.spectra, strict=True)
        record = ConvertedRecord(
            source=self.checkpoint.name,
            source_sha256=self.checkpoint.sha256,
            origin=self.checkpoint.origin,
            assumed=self.checkpoint.assumed or None,
            order_size=None if self.images is None else self.images.img_size,
            condition=self.options.condition or None,
            dtype=None if self.dtype == torch.float32 else str(self.dtype).removeprefix("torch."),
            metric="activations" if weighted else "weights",
            order_images=self.order_images,
            seconds=0.0,
            error=slice_errors(dense, template),
            feature_error=None if self.images is None else self.feature_error(template, self.images),
            spectrum={mode: [float(f"{v:.3e}") for v in values.tolist()] for mode, values in spectra},
        )
        return Converted(template, ranks, self.checkpoint.mae, record)

    @property
    def order_images(self) -> str | None:
        """What the order was computed from."""
        if self.images is not None:
            return self.images.described
        return None if self.order is None else "the source's own"

    def feature_error(self, template: Source, images: OrderImages) -> float:
        """Relative error of a template's features on the images of this conversion."""
        theirs, ours = self.seen, self.sized(template)
        compared = images.first(COMPARED).shown("comparison")
        return feature_error(theirs.source, ours.source, ours.config, compared, self.device)

    def sized(self, template: Source) -> Sized:
        """A template of the checkpoint's positions for the image size of the order."""
        return at_image_size(template, self.config, self.seen.config.img_size)

    def heal(self, made: Converted, run: Path | None) -> Converted:
        """The template after healing; as it is where no steps are set. The loss curve goes to the folder ``run``."""
        options, config = self.options, self.config
        if not options.heal_steps or options.data is None:
            return made
        mae, began = made.mae or own_decoder(config.width), time.perf_counter()
        record = FolderRecord(kind="template", vit=config, mae=mae, data=self.checkpoint.data)
        images = open_images(options.data, "train", pixels=self.checkpoint.data)
        stored = StoredSource(made.template, record)
        template = heal(stored, images, steps=options.heal_steps, lr=options.heal_lr, device=options.device, run=run)
        seconds = time.perf_counter() - began
        assert self.images is not None  # healing has images
        template.order = compute_order(*self.sized(template), self.images, device=self.device)
        seen, pflops = healing_cost(config, mae, made.ranks, options.heal_steps)
        healing = HealingRecord(
            steps=options.heal_steps,
            images=seen,
            pflops=pflops,
            seconds=round(seconds, 1),
            data=without_path(options.data),
            feature_error=self.feature_error(template, self.images),
        )
        return replace(made, template=template, mae=mae, record=made.record.model_copy(update={"healing": healing}))

    def recipe(self, made: Converted) -> str:
        """``recipe.yaml``: the options that led here."""
        options = self.options
        values: dict[str, object] = {
            "convert": self.checkpoint.name,
            "ranks": list(made.ranks),
            "energy": options.energy,
            "metric": made.record.metric,
            "data": without_path(options.data) if options.data else None,
            "images": options.images,
            "img_size": None if self.images is None else self.images.img_size,
            "heal": options.heal_steps,
            "heal_lr": options.heal_lr,
            "condition": options.condition,
        }
        return as_yaml(values)


def prepare(checkpoint: Checkpoint, order: Order | None, options: ConvertOptions) -> Conversion:
    """The checkpoint, folded, with its images and its principal order. Raises UserError for what cannot be done."""
    device = resolve_device(options.device)
    if checkpoint.assumed:
        hint = HINT if any("mean" not in line for line in checkpoint.assumed) else "--mean and --std say them"
        say(f"{checkpoint.name}: assumed {'; '.join(checkpoint.assumed)}; {hint}")
    config = checkpoint.config
    ranks = _ranks(options, config)
    images = None
    if options.data is not None or (order is None and config.in_chans == 3):
        images = OrderImages.of(checkpoint, options.data, options.images, options.img_size, device)
    elif order is not None:
        _check_unused(checkpoint, options)
    dense = folded(source_from_state(checkpoint.state, config))
    seen = at_image_size(dense, config, None if images is None else images.img_size)
    if options.condition:
        if images is None:
            raise UserError(f"condition=true: looks at images of {config.in_chans} channels; name some with --data")
        moments = moments_of(*seen, images.shown("moments"), device=device).stream
        state = checkpoint.state | conditioned(checkpoint.state, config, moments)
        checkpoint = replace(checkpoint, state=state, width=None)  # that was of the axes it was learned in
        dense = source_from_state(state, config)
        seen = at_image_size(dense, config, images.img_size)
    if images is not None:
        order = compute_order(*seen, images.shown("principal order"), device=device)
    return Conversion(options, checkpoint, dense, seen, order, images, ranks, device)


def _check_unused(checkpoint: Checkpoint, options: ConvertOptions) -> None:
    """Raises UserError for options about images where a source brings its own order."""
    given = {"--img-size": options.img_size, "--images": options.images}
    for option, value in given.items():
        if value not in (None, ConvertOptions.images):
            raise UserError(f"{option} {value}: {checkpoint.name} has its own order; --data SRC computes another")


def summary(record: FolderRecord, out: Path) -> dict[str, object]:
    """What a conversion made, for people and machines."""
    converted = record.converted
    assert converted is not None
    result: dict[str, object] = {
        "size": str(record.vit.size),
        "ranks": list(record.ranks or ()),
        "error": converted.error.overall,
        "error_of": converted.error.components,
        "feature_error": converted.feature_error,
    }
    if converted.healing is not None:
        result["healed_feature_error"] = converted.healing.feature_error
    result["order_images"] = converted.order_images or "none: prefix order only"
    if converted.order_size:
        result["order_size"] = converted.order_size
    if converted.assumed:
        result["assumed"] = list(converted.assumed)
    return result | {"seconds": converted.seconds, "out": str(out)}


def _full(config: ViTConfig) -> Ranks:
    return config.slices * config.depth, config.width, config.width


def _ranks(options: ConvertOptions, config: ViTConfig) -> Ranks | None:
    """The ranks that were given or, without ``energy``, all. Raises UserError for others than the mode has."""
    if options.ranks is None:
        return _full(config) if options.energy is None else None
    text = f"--ranks {','.join(map(str, options.ranks))}"
    if len(options.ranks) != 3:
        raise UserError(f"{text}: expected three, r1,r2,r3")
    r1, r2, r3 = options.ranks
    for name, rank, size in zip(("r1", "r2", "r3"), options.ranks, _full(config), strict=True):
        if not 1 <= rank <= size:
            raise UserError(f"{text}: {name} = {rank} is not in 1..{size}")
    return r1, r2, r3
