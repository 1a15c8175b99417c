"""What every task provides; the training loop, its checkpoints and the verbs call nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from sweet.console import progress
from sweet.data import BatchSource, Finding, ImageSet, ImageSource, Samples, Skips, class_findings
from sweet.data.samples import Collate
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import CENTRE_CROP, DataConfig

Row = dict[str, str | float]  # of a table of predictions
T = TypeVar("T")


@dataclass(frozen=True)
class TrainSettings:
    """Which training batches one process takes, and where they go.

    ``batch_size`` counts the images of one forward pass; ``rank`` is the number of the process out of ``world``, see
    :class:`sweet.data.epoch_order.EpochOrder`. ``skips``: which images may be left out.
    """

    recipe: FinetuneRecipe
    batch_size: int
    rank: int = 0
    world: int = 1
    device: torch.device | str = "cpu"
    skips: Skips | None = None

    def samples(self, count: int, load: Callable[[int, torch.Generator], Any], collate: Collate) -> Samples:
        """Batches of ``count`` samples whose targets change with the image, see :class:`sweet.data.Samples`."""
        return Samples(
            count,
            load,
            collate,
            batch_size=self.batch_size,
            seed=self.recipe.seed,
            rank=self.rank,
            world=self.world,
            device=self.device,
            workers=self.recipe.workers,
            skips=self.skips,
        )


@dataclass(frozen=True)
class EvalSettings:
    """How images reach a trained model: prepared by ``data_config``, ``batch_size`` at a time, onto ``device``.

    ``workers`` processes decode them; 0: none besides this one. ``shows`` is the name under which progress is shown;
    None shows none. Of predictions only those that are at least as sure as ``threshold``; None: as the task does by
    itself.
    """

    data_config: DataConfig
    device: torch.device | str = "cpu"
    batch_size: int = 256
    workers: int = 0
    shows: str | None = None
    threshold: float | None = None

    def shown(self, batches: Iterable[T], total: int, size: int | None = None) -> Iterable[T]:
        """The batches of ``total`` images, ``size`` at a time (default: ``batch_size``), with progress where wanted."""
        return batches if self.shows is None else progress(batches, total, size or self.batch_size, self.shows)


@dataclass(frozen=True)
class Metrics:
    """What an evaluation measured.

    scores: single numbers by key, the task's own metrics (:data:`sweet.tasks.registry.METRICS_OF`) among them; None
        where the set holds nothing to measure one by.
    images: how many images were evaluated.
    per_class: tables by key, each {class name: number}, mostly percent, of the classes that occur.
    confusion: counts of images, a row for each true class and a column for each predicted one; None without labels.
    notes: what has to be known to read the scores.
    """

    scores: Mapping[str, float | None]
    images: int
    per_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: list[list[int]] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As one flat object for JSON: the keys of scores, tables and notes, ``images`` and ``confusion``."""
        tables = {} if self.confusion is None else {"confusion": self.confusion}
        return {**self.scores, "images": self.images, **self.per_class, **self.notes, **tables}


class Options(BaseModel):
    """Keys of a recipe's group ``head``: what the head of a task is like. They travel with the model."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    use: ClassVar[frozenset[str]] = frozenset()  # keys that say how trained weights are used, not what they are

    def of_weights(self) -> Mapping[str, object]:
        """The keys in which two heads must agree for one to start from the weights of the other."""
        return self.model_dump(exclude=set(self.use))


class Task(ABC):
    """A task over ``classes``: which images it takes, the network around a ViT, loss, metrics, pictures.

    ``recipe`` is what it is trained by, None where a finished model is only used; ``head`` are the options of its head.
    Raises UserError for an option that the task does not know, and for a key of the recipe that has no effect here.
    """

    Options: ClassVar[type[Options]] = Options
    timm_options: ClassVar[Mapping[str, Any]] = {}  # how the ViT has to be built
    crop: ClassVar[str] = CENTRE_CROP  # which part of an image is looked at
    top: ClassVar[int] = 5  # predictions for one image, unless another number is given
    without_effect: ClassVar[tuple[str, ...]] = ()  # keys of a recipe, also dotted ones of data, that change nothing
    interpolates: ClassVar[bool] = True  # images are resized as data.interpolation says
    cheap_to_evaluate: ClassVar[bool] = True  # an image costs about a forward pass
    reads_all: ClassVar[bool] = False  # all that belongs to the images is read before the training
    balances: ClassVar[tuple[str, ...]] = ()  # values of optim.balance, besides none, that this task knows

    def __init__(
        self, classes: list[str], recipe: FinetuneRecipe | None = None, head: Mapping[str, object] | None = None
    ) -> None:
        self.classes, self.recipe = classes, recipe
        self.notes: list[str] = []  # lines for the person who trains or predicts
        self.seed = recipe.seed if recipe else 0
        self.smoothing = recipe.label_smoothing if recipe else 0.0
        if recipe is not None:
            self._refuse_keys_without_effect(recipe)
            if recipe.optim.balance not in ("none", *self.balances):
                raise UserError(
                    f"optim.balance={recipe.optim.balance}: here only {', '.join(('none', *self.balances))}"
                )
        options = dict(recipe.head if recipe else head or {})
        try:
            self.head = self.Options.model_validate(options)
        except ValidationError as error:
            first = error.errors()[0]
            key, known = ".".join(map(str, first["loc"])), ", ".join(self.Options.model_fields) or "none"
            raise UserError(f"head.{key}={options.get(key)}: {first['msg']}; keys of head here: {known}") from None

    def _refuse_keys_without_effect(self, recipe: FinetuneRecipe) -> None:
        """Raises UserError for a key that is not at its default and would change nothing."""
        idle = dict.fromkeys(self.without_effect, f"has no effect on --task {type(self).__name__.lower()}")
        augment = recipe.data.augment
        if augment != "rrc":
            idle.setdefault("data.crop_scale", f"has no effect with data.augment={augment}")
        if augment == "none" and recipe.data.hflip:
            idle.setdefault("data.hflip", "has no effect with data.augment=none")
        if recipe.val_every == 0 or (recipe.val_every is None and not self.cheap_to_evaluate):
            idle["patience"] = "has no effect where nothing is validated while training; set val_every"
        for key, why in idle.items():
            group, _, name = key.rpartition(".")
            holder = recipe.data if group == "data" else recipe
            value = getattr(holder, name)
            if value != type(holder).model_fields[name].default:
                raise UserError(f"{key}={list(value) if isinstance(value, tuple) else value}: {why}; leave it out")

    def findings(self, images: ImageSource) -> list[Finding]:
        """What is odd about a set for this task: classes of which there is nothing, for example."""
        return class_findings(images.split, images.classes, images.labels)

    @staticmethod
    @abstractmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of a set. Raises UserError when it lacks what the task learns from."""

    @staticmethod
    def relabel(images: ImageSource, classes: Sequence[str]) -> bool:
        """Give what the task learns from the numbers of ``classes``, by name; false where that cannot be done."""
        return False

    def adapt(self, train: ImageSource, val: ImageSource) -> None:
        """Choose those options of the head that follow from the images, and look for what training will need.

        Called once before there is a network. Raises UserError for images that the task cannot be learned from.
        """
        return None

    @property
    def outputs(self) -> int:
        """Outputs of timm's own head on the ViT; 0: the task has a head of its own."""
        return 0

    def settled(self, data_config: DataConfig, metrics: Metrics) -> DataConfig:
        """What travels with the trained model, completed by what was measured on the validation images."""
        return data_config

    def network(self, vit: Any) -> nn.Module:
        """The ViT with its head: the ViT itself, or a module that keeps it as ``vit``."""
        network: nn.Module = vit
        return network

    def prepare_data(self, images: ImageSource, data_config: DataConfig) -> ImageSet:
        """A set as it is kept while training: packed into memory, or decoded image by image."""
        return images

    @abstractmethod
    def batches(self, data: ImageSet, settings: TrainSettings) -> BatchSource:
        """Augmented training batches (inputs, targets) of one process."""

    @abstractmethod
    def loss(self, model: nn.Module, inputs: Any, targets: Any, step: int) -> Tensor:
        """The loss of a batch, a scalar in float32; randomness is a function of the step."""

    @abstractmethod
    def evaluate(self, model: nn.Module, data: ImageSet, settings: EvalSettings) -> Metrics:
        """What the model is worth on a whole set. Raises UserError for a set with nothing to measure by."""

    @abstractmethod
    def predict(
        self, model: nn.Module, images: ImageSource, settings: EvalSettings, *, top: int, out: Path | None
    ) -> list[Row]:
        """At most ``top`` predictions for each image, rows of a table; pictures of them into the folder ``out``.

        What a person should know besides goes to ``notes``.
        """

    @abstractmethod
    def pictures(self, model: nn.Module, data: ImageSet, settings: EvalSettings, metrics: Metrics, out: Path) -> None:
        """What a person wants to look at after training, as PNG files in the folder ``out``."""
