"""Learn a source by labels and a teacher instead of masked patches: how WAVE's templates are learned.

The loss of an image is KL(teacher, student) over the classes, and cross-entropy where its label is known. What reads
the features, elsewhere the decoder's embedding, is the classifier's head here, and is sliced and rotated like that one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweet.costs.flops import supervised_image_flops
from sweet.data import ImageSource, balanced_subset
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.forward import Weights, encode, linear, patchify
from sweet.models.source_module import WHOLE_STEP, Part, SourceModule
from sweet.recipes.schema import PretrainRecipe
from sweet.template.image_size import size_text
from sweet.template.networks import Network
from sweet.template.source import Source

from .network import FinetunedModel

UNKNOWN = -1  # the label of an image that is learned from the teacher alone


def class_logits(weights: Weights, images: Tensor, config: ViTConfig) -> Tensor:
    """(B, C, H, W) -> (B, classes): the head on the mean of the patch tokens, as a built model pools them."""
    tokens = encode(weights, patchify(images, config.patch_size), config)
    return linear(tokens[:, 1:].mean(1), weights, "decoder.embed").float()


def distance(logits: Tensor, wanted: Tensor) -> Tensor:
    """KL(softmax of ``wanted``, softmax of ``logits``), the mean over a batch (B, classes)."""
    return F.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True)


def new_head(source: Source, classes: int) -> Source:
    """The source with a classifier's head, zero, in place of a decoder."""
    source.decoder = {"embed.weight": torch.zeros(classes, source.width), "embed.bias": torch.zeros(classes)}
    return source


def known_labels(images: ImageSource, recipe: PretrainRecipe) -> ImageSource:
    """The images with the labels that may be learned from (``data.labels`` of them, all by default).

    Raises UserError where they have none.
    """
    if images.labels is None:
        raise UserError(f"objective=supervised: {recipe.data.source} has no class labels")
    if recipe.data.labels is None:
        return images
    known = set(balanced_subset(images.labels, recipe.data.labels, recipe.data.label_seed))
    some = copy(images)
    some.labels = [label if index in known else UNKNOWN for index, label in enumerate(images.labels)]
    return some


def open_teacher(recipe: PretrainRecipe, classes: Sequence[str] | None) -> nn.Module | None:
    """The frozen classifier that ``teacher`` names, or None.

    Raises UserError where it knows other classes, or takes other pixels than the recipe makes.
    """
    if recipe.teacher is None:
        return None
    teacher = FinetunedModel(Path(recipe.teacher), "cpu")
    if teacher.task_name != "classify" or teacher.task.classes != list(classes or ()):
        raise UserError(f"teacher={recipe.teacher}: does not tell the classes of {recipe.data.source} apart")
    if teacher.data.img_size != recipe.data.img_size:
        own = size_text(recipe.data.img_size)
        raise UserError(f"teacher={recipe.teacher}: takes {size_text(teacher.data.img_size)} px, not {own}")
    for key in ("mean", "std", "value_range"):
        theirs, ours = (json.dumps(getattr(data, key)) for data in (teacher.data, recipe.data))
        if theirs != ours:
            raise UserError(f"teacher={recipe.teacher}: takes images of data.{key}={theirs}, the recipe says {ours}")
    return teacher.model.requires_grad_(False)


class SupervisedSource(SourceModule):
    """A source whose tensors are parameters; its forward is the supervised loss of one or more sub-networks.

    Images (B, C, H, W), labels (B,) with :data:`UNKNOWN` where none is known. Without a teacher there is only the
    cross-entropy. ``how`` as in :class:`SourceModule`.
    """

    def __init__(self, source: Source, config: ViTConfig, teacher: nn.Module | None, **how: str) -> None:
        super().__init__(source, config, **how)
        # in a list: it is neither trained nor saved
        self.teacher: list[Any] = [] if teacher is None else [teacher]

    def forward(
        self, images: Tensor, labels: Tensor, networks: Sequence[Network] | None = None, part: Part = WHOLE_STEP
    ) -> Tensor:
        """The mean loss of ``networks``, by default of the whole one: a scalar in float32.

        ``part`` says which micro-batch of a step this is.
        """
        wanted = self.teacher_logits(images)
        losses, tokens = [], len(images) * (self.config.patches + self.config.prefix_tokens)
        for weights, config in self.step_weights(networks or [self.whole], tokens, part):
            logits = class_logits(weights, images, config)
            loss = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum") / len(labels)
            losses.append(loss if wanted is None else loss + distance(logits, wanted))
        return torch.stack(losses).mean()

    def image_flops(self, classes: int) -> float:
        """See :func:`sweet.costs.flops.supervised_image_flops`."""
        shapes = [self.config.resized(len(vit.blocks), vit.embed_dim // self.config.head_dim) for vit in self.teacher]
        return supervised_image_flops(self.config, classes, *shapes)

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor | None:
        """(B, classes) of the teacher, None without one."""
        for teacher in self.teacher:
            logits: Tensor = teacher.to(images.device).eval()(images)
            return logits.float()
        return None
