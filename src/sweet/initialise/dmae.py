"""DMAE (Bai et al., "Masked Autoencoders Enable Efficient Knowledge Distillers", CVPR 2023, arXiv 2208.12256).

A student of the target size starts from scratch and learns as a masked autoencoder; beside the pixels it predicts what
the teacher, the dense source, makes of the same visible patches:

    loss = MSE(masked pixels) + alpha * mean | P f_student / |P f_student| - f_teacher / |f_teacher| |

f are raw outputs of the blocks at three quarters of the depth, before the final norm, of all visible tokens and the
class token; P is one linear map d -> D, thrown away afterwards. Pixel targets are the source's own. The
weights are the student's, its decoder included. One run for each target size, so the fair share of work is the
source's pre-training samples divided by the sizes of a table, five.

Switches: ``steps`` (0: the fair share), ``batch``, ``lr``, ``alpha`` and ``layer``, the share of the depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweet.costs.flops import STUDENTS
from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify
from sweet.models.mae import init_source, reconstruct, sincos, split_patches
from sweet.models.source_module import as_parameters, as_tensors
from sweet.storage.folders import StoredSource, source_tensors
from sweet.template.sizes import Size
from sweet.template.target import target_weights
from sweet.training.loop import ParameterGroup
from sweet.training.short_run import ShortRun, train_on

WARMUP, DECAY = 0.1, 0.05


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    steps: int = 0,
    batch: int = 128,
    lr: float = 1.5e-3,
    alpha: float = 1.0,
    layer: float = 0.75,
) -> dict[str, Tensor]:
    """Weights distilled from a dense source; needs ``data``. Raises UserError where ``steps`` cannot be derived."""
    if data is None:
        raise ValueError("dmae: needs images")
    ShortRun(steps, batch, lr)  # refuses what cannot be
    if not 0 < layer <= 1:
        raise UserError(f"layer={layer:g}: is a share of the depth, above 0 and at most 1")
    settings = ShortRun(steps or fair_share(source, batch), batch, lr, WARMUP, device, run)
    model = Distillation(source, size, alpha, torch.Generator().manual_seed(seed), layer)
    train_on(model, data, source, settings, budget=budget, seed=seed, groups=groups(model))
    return {name: value.detach() for name, value in as_tensors(model.student).items()}


def fair_share(source: StoredSource, batch: int) -> int:
    """Steps of one of five students that together see as many samples as the source's pre-training did."""
    training = source.record.training
    if training is None:
        raise UserError("--method dmae: the source does not say how many images it was trained on; give steps=N")
    return max(1, training.images // (STUDENTS * batch))


def aligned(depth: int, share: float = 0.75) -> int:
    """Index of the block at a share of the depth: 1, 4, 8 and 17 of 3, 6, 12 and 24 at three quarters."""
    return max(0, int(share * depth + 0.5) - 1)  # round() would take 4.5 to 4


class Distillation(nn.Module):
    """Student, frozen teacher and the map between them; its forward is the loss of a batch."""

    def __init__(
        self, source: StoredSource, size: Size, alpha: float, generator: torch.Generator, layer: float = 0.75
    ) -> None:
        super().__init__()
        whole, self.mae, self.alpha = source.config, source.mae, alpha
        self.config = whole.resized(size.depth, size.heads)
        self.aligned = aligned(size.depth, layer)
        fresh = init_source(self.config, self.mae, constraint="none", ranks=(), generator=generator)
        self.student = as_parameters(source_tensors(fresh))
        for name, parameter in self.student.items():  # fixed positions do not learn
            parameter.requires_grad_(name != "pos_embed")
        # only as deep as it is looked at
        self.teacher_config = replace(whole, depth=aligned(whole.depth, layer) + 1)
        teacher = target_weights(source.source, whole.depth, whole.width, order="prefix", layers="first")
        self.teacher = as_parameters(teacher, learn=False)
        self.projection = nn.Linear(size.width, whole.width)
        nn.init.xavier_uniform_(self.projection.weight, generator=generator)
        nn.init.zeros_(self.projection.bias)
        self.positions: Tensor
        self.register_buffer("positions", sincos(whole.grid, self.mae.decoder_width), persistent=False)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W), noise (B, N) that says which patches are visible -> the loss."""
        streams: dict[int, Tensor] = {}
        weights = as_tensors(self.student)
        made = reconstruct(weights, images, noise, self.config, self.mae, self.positions, hook=streams.__setitem__)
        ours = self.projection(streams[2 * self.aligned + 2])
        theirs = features(as_tensors(self.teacher), images, noise, self.teacher_config, self.mae.mask_ratio)
        distance = (F.normalize(ours.float(), dim=-1) - F.normalize(theirs.float(), dim=-1)).abs().mean()
        return made.loss + self.alpha * distance


@torch.no_grad()
def features(
    weights: Mapping[str, Tensor], images: Tensor, noise: Tensor, config: ViTConfig, mask_ratio: float
) -> Tensor:
    """What the last of ``config.depth`` blocks puts out, (B, 1 + n, D), for the visible patches alone."""
    streams: dict[int, Tensor] = {}
    keep, _ = split_patches(noise, mask_ratio)
    encode(weights, patchify(images, config.patch_size), config, keep=keep, hook=streams.__setitem__)
    return streams[2 * config.depth]


def groups(model: Distillation) -> list[ParameterGroup]:
    """AdamW's: decay on matrices only."""
    decayed: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed[parameter.dim() > 1 and not name.endswith("token")].append(parameter)
    return [{"params": decayed[True], "weight_decay": DECAY}, {"params": decayed[False], "weight_decay": 0.0}]
