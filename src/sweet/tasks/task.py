"""What every task answers; the training loop, its checkpoints and the verbs ask nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from sweet.data import ImageSource, Packed
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig


class TrainBatches(Protocol):
    """Batches as a pure function of the step (see :class:`sweet.data.Batches`)."""

    @property
    def steps_per_epoch(self) -> int: ...

    def iterate(self, start: int, stop: int) -> Iterator[tuple[Any, Any]]: ...


class Options(BaseModel):
    """Keys of a recipe's group ``head``: what the head of a task is like. They travel with the model."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    use: ClassVar[frozenset[str]] = frozenset()  # keys that say how trained weights are used, not what they are

    def of_weights(self) -> dict[str, Any]:
        """The keys in which two heads must agree for one to start from the weights of the other."""
        return self.model_dump(exclude=set(self.use))


class Task(ABC):
    """A task over ``classes``: which images it takes, the network around a ViT, loss, metrics, pictures.

    ``recipe`` is what it is trained by, None where a finished model is only used; ``head`` are the options of its head.
    Raises UserError for an option that the task does not know.
    """

    Options: ClassVar[type[Options]] = Options
    timm_options: ClassVar[Mapping[str, Any]] = {}  # how the ViT has to be built
    crop: ClassVar[str] = "short side resized, centre cropped"  # what of an image is looked at
    top: ClassVar[int] = 5  # answers per image, when no other number is asked for

    def __init__(
        self, classes: list[str], recipe: FinetuneRecipe | None = None, head: Mapping[str, Any] | None = None
    ) -> None:
        self.classes, self.recipe = classes, recipe
        told = dict(recipe.head if recipe else head or {})
        try:
            self.head = self.Options.model_validate(told)
        except ValidationError as error:
            first = error.errors()[0]
            key, known = ".".join(map(str, first["loc"])), ", ".join(self.Options.model_fields) or "none"
            raise UserError(f"head.{key}={told.get(key)}: {first['msg']}; keys of head here: {known}") from None

    @staticmethod
    @abstractmethod
    def classes_of(images: ImageSource) -> list[str]:
        """Class names of a set. Raises UserError when it lacks what the task learns from."""

    def adapt(self, train: ImageSource, val: ImageSource) -> None:
        """Settle what the images decide about the head; called before there is a network. Raises UserError."""
        return None

    @property
    def outputs(self) -> int:
        """Outputs of timm's own head on the ViT; 0: the task has a head of its own."""
        return 0

    def network(self, vit: Any) -> nn.Module:
        """The ViT with its head: the ViT itself, or a module that keeps it as ``vit``."""
        network: nn.Module = vit
        return network

    def prepare_data(self, images: ImageSource, data_config: DataConfig) -> ImageSource | Packed:
        """A set as it is kept while training: packed into memory, or read as it is asked for."""
        return images

    @abstractmethod
    def batches(
        self,
        data: ImageSource | Packed,
        recipe: FinetuneRecipe,
        *,
        batch_size: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> TrainBatches:
        """Augmented training batches (inputs, targets) of one process."""

    @abstractmethod
    def loss(self, model: nn.Module, inputs: Any, targets: Any, step: int) -> Tensor:
        """The loss of a batch, a scalar in float32; randomness is a function of the step."""

    @abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        *,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> dict[str, Any]:
        """Metrics of a set, the task's main one among them (:data:`sweet.tasks.registry.TASKS`), and ``images``."""

    @abstractmethod
    def predict(
        self,
        model: nn.Module,
        images: ImageSource,
        data_config: DataConfig,
        *,
        top: int,
        device: torch.device,
        out: Path | None,
    ) -> list[dict[str, Any]]:
        """What is seen in single images, rows for a table; pictures of it into the folder ``out``, if there is one."""

    @abstractmethod
    def pictures(
        self,
        model: nn.Module,
        data: ImageSource | Packed,
        data_config: DataConfig,
        metrics: Mapping[str, Any],
        out: Path,
        device: torch.device,
    ) -> None:
        """What a person wants to look at after training, as PNG files in the folder ``out``."""
