"""The sliced target learns the source's own features on unlabelled images: all its weights train.

The target starts as ``sweet`` slices it. A linear map, fitted by least squares at the start, reads its tokens and its
class token after the final norm; the loss is the share of the variance of the source's features that it misses, half
of the class token, half of the patches; their means are left to a constant. So people make a small model from a large
one (DINOv2, arXiv 2304.07193, 5; TinyMIM, arXiv 2301.01296); ours starts further ahead.

Switches: ``steps``, ``batch``, ``lr`` (peak), ``warmup`` (share), ``decay``: AdamW, half a cosine to zero.
``mask_ratio``: 0 (default) whole images; else the target sees the other patches only, the source the whole image.
``start`` sweet (default), weight_selection (first channels; of a dense source) or random; ``order`` and ``layers`` as
for ``sweet``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from sweet.data import ImageSource, some
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify, visible_tokens
from sweet.models.mae import split_patches
from sweet.models.source_module import as_parameters, as_tensors
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size
from sweet.training.loop import ParameterGroup
from sweet.training.short_run import ShortRun, crops, train_on

from . import random as random_start
from . import sweet as sliced_start
from . import weight_selection as selected_start
from .sweet_fitted import stored_weights

FITTED = 512  # images on which the linear map is fitted: each has one class token, so few are learned by heart
PART = 64  # of them at a time
RIDGE = 1e-3


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    steps: int = 500,
    batch: int = 128,
    lr: float = 5e-4,
    warmup: float = 0.1,
    decay: float = 0.05,
    mask_ratio: float = 0.0,
    start: Literal["sweet", "weight_selection", "random"] = "sweet",
    order: Literal["principal", "prefix"] = "principal",
    layers: Literal["even", "first"] = "even",
) -> dict[str, Tensor]:
    """Weights of any depth and width, trained towards the features of any source; needs ``data``.

    Raises UserError for numbers out of range, where no order was computed, and for weight selection from a template or
    to a larger size.
    """
    if data is None:
        raise ValueError("distilled: needs images")
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio={mask_ratio:g}: should be at least 0 and below 1")
    if not 0 <= warmup < 1 or decay < 0:
        raise UserError(f"warmup={warmup:g} decay={decay:g}: should be at least 0, and warmup below 1")
    settings = ShortRun(steps, batch, lr, warmup=warmup, device=device, run=run)
    if start == "random":
        weights = random_start.initialise(source, size, seed=seed)
    elif start == "weight_selection":
        _check_selected(source, size)
        weights = selected_start.initialise(source, size, seed=seed, rule="consecutive", layers=layers)
    else:
        weights = sliced_start.initialise(source, size, seed=seed, order=order, layers=layers)
    encoder = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
    model = Distilled(encoder, source, size, mask_ratio=mask_ratio)
    if steps:
        model.fit_reader(first_images(data, source, budget, seed))
        train_on(model, data, source, settings, budget=budget, seed=seed, groups=parameter_groups(model, decay))
    return {name: value.detach() for name, value in as_tensors(model.tensors).items()}


def _check_selected(source: StoredSource, size: Size) -> None:
    constraint, whole = source.source.core.constraint, source.config.size
    if constraint != "none":
        raise UserError(f"start=weight_selection: the source's constraint is {constraint}; it takes a dense one")
    if size.depth > whole.depth or size.heads > whole.heads:
        raise UserError(f"start=weight_selection: {size} is larger than the source {whole}")


def parameter_groups(model: nn.Module, decay: float) -> list[ParameterGroup]:
    """Matrices and tables of the target and of its reader decay, vectors do not."""
    learning = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learning if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in learning if p.dim() < 2], "weight_decay": 0.0},
    ]


def cost(source: ViTConfig, target: ViTConfig, chosen: Mapping[str, str | float]) -> dict[str, float]:
    """Images seen and PFLOPs: the source forward, the target forward and backward, for every image."""
    images = int(chosen["steps"]) * int(chosen["batch"])
    seen = 1 - float(chosen["mask_ratio"])
    flops = source.cost().flops(attention=True) + 3 * seen * target.cost().flops(attention=True)
    return {"train_images": images, "train_pflops": round(images * flops / 1e15, 6)}


def first_images(data: ImageSource, source: StoredSource, budget: int | None, seed: int) -> Iterator[Tensor]:
    """Batches of normalised images (B, C, H, W), at most :data:`FITTED`, cropped as those of the training."""
    chosen = some(data, budget, seed)
    batches = crops(chosen, source, min(PART, len(chosen)), seed)
    for number in range(max(1, min(FITTED, len(chosen)) // PART)):
        yield batches.at(number)[0]


class Distilled(nn.Module):
    """A target all of whose weights learn, a linear reader, and the frozen source; its forward is the loss."""

    def __init__(
        self, weights: Mapping[str, Tensor], source: StoredSource, size: Size, *, mask_ratio: float = 0.0
    ) -> None:
        super().__init__()
        self.whole, self.config = source.config, source.config.resized(size.depth, size.heads)
        self.mask_ratio = mask_ratio
        # one layout: a resumed optimiser's moments are contiguous, and its kernel reads them beside the weights
        self.tensors = as_parameters({name: value.contiguous() for name, value in weights.items()})
        known = stored_weights(source.source)
        self.teacher = as_parameters({k: v for k, v in known.items() if not k.startswith("decoder.")}, learn=False)
        self.reader = nn.Linear(size.width, source.source.width)

    def features(self, patches: Tensor, keep: Tensor | None) -> Tensor:
        """The target's tokens (B, 1 + n, d) after the final norm."""
        return encode(as_tensors(self.tensors), patches, self.config, keep=keep)

    @torch.no_grad()
    def known(self, patches: Tensor, keep: Tensor | None) -> Tensor:
        """The source's tokens (B, 1 + n, D): of whole images, those that the target sees."""
        tokens = encode(as_tensors(self.teacher), patches, self.whole).float()
        return tokens if keep is None else visible_tokens(tokens, keep, self.whole)

    @torch.no_grad()
    def fit_reader(self, batches: Iterable[Tensor]) -> None:
        """The reader by ridge regression on batches of images (B, C, H, W)."""
        device, width = self.reader.weight.device, self.config.width
        sums = means = torch.zeros((), dtype=torch.double, device=device)  # of products of [x | y], and of [x | y]
        seen = 0
        for images in batches:
            patches = patchify(images.to(device), self.config.patch_size)
            both = torch.cat([self.features(patches, None), self.known(patches, None)], -1).flatten(0, 1).double()
            sums, means, seen = sums + both.t() @ both, means + both.sum(0), seen + len(both)
        means = means / seen
        products = sums - seen * torch.outer(means, means)
        mx, my, gram = means[:width], means[width:], products[:width, :width]
        gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(width, dtype=gram.dtype, device=device)
        map_ = torch.linalg.solve(gram, products[:width, width:])
        self.reader.weight.copy_(map_.t().float())
        self.reader.bias.copy_((my - mx @ map_).float())

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W), noise (B, N) that chooses the visible patches -> the loss."""
        patches = patchify(images, self.config.patch_size)
        keep = split_patches(noise, self.mask_ratio)[0] if self.mask_ratio else None
        known = self.known(patches, keep)
        read = self.reader(self.features(patches, keep)).float()
        first = read.shape[1] - (patches.shape[1] if keep is None else keep.shape[1])
        return 0.5 * (missed(read[:, :first], known[:, :first]) + missed(read[:, first:], known[:, first:]))


def missed(read: Tensor, known: Tensor) -> Tensor:
    """The share of the variance of ``known`` (B, n, D) that ``read`` misses; both without their mean over all tokens.

    That is the map with the best constant for each batch. A released checkpoint's features have a mean many times
    their deviation: a constant that is learned cannot follow what the first steps do to it (docs/log.md).
    """
    if known.shape[0] * known.shape[1] > 1:
        read, known = (value - value.mean((0, 1), keepdim=True) for value in (read, known))
    return (read - known).square().sum() / known.square().sum().clamp_min(1e-12)
