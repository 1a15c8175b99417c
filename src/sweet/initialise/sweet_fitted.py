"""SWEET, fitted (Eq. 9): the core is frozen and the target's scalers learn for some hundred steps on few images.

Switches:

* ``train``: ``x`` (a few thousand numbers), ``xuv``, ``all`` (default; also the ordinary parameters and the decoder) or
  ``decoder``, a control in which the encoder stays as it was sliced. The reader of the encoder's features, which is the
  decoder's embedding, learns along in every case: it has to meet a narrower stream.
* ``objective``: ``mae``, the loss of pre-training; ``features`` (default), the template's own features after the final
  norm, read by a linear map, of the patches that both see, all but a share of ``mask_ratio`` (``mae`` masks as the
  source was masked); ``closed``, no steps at all: X by least squares (:mod:`.closed_form`).
* ``start`` of X: ``sliced`` from the template by the rule ``layers`` (default), ``interpolated`` linearly over depth or
  ``random`` directions of the sliced rows' length. ``order`` and ``layers`` as for ``sweet``.
* ``inner``: which heads and hidden units a narrower target takes in principal order, as for ``sweet``.
* ``gains`` of what comes out: ``best`` (default: equal in principal order) or ``rms``, as for ``sweet``.
* ``steps``, ``batch``, ``lr``: AdamW without decay, half a cosine to zero. ``ridge`` is for ``closed``.

Eq. 9 as the paper writes it, X, U and V by the loss of pre-training from the paper's slice, is ``order=prefix train=xuv
objective=mae``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.models.forward import encode, linear, patchify
from sweet.models.mae import reconstruct, sincos, split_patches
from sweet.models.source_module import as_parameters, as_tensors
from sweet.storage.folders import StoredSource
from sweet.storage.header import ORDER
from sweet.template.constraints import core_of
from sweet.template.sizes import Size
from sweet.template.slices import under
from sweet.template.source import Source, at_depth
from sweet.template.target import target_weights
from sweet.template.tucker import Tucker
from sweet.training.short_run import ShortRun, train_on

from .closed_form import closed_form
from .sweet import best_gains, best_layers, with_equal_gains

ORDINARY = ("blocks", "stem", "decoder")
READER = ("decoder/embed/weight", "decoder/embed/bias")
XUV = ("core/x", "core/u", "core/v")
SCALERS = {"decoder": (), "x": XUV[:1], "xuv": XUV, "all": XUV}


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    train: Literal["x", "xuv", "all", "decoder"] = "all",
    objective: Literal["mae", "features", "closed"] = "features",
    start: Literal["sliced", "interpolated", "random"] = "sliced",
    order: Literal["principal", "prefix"] = "principal",
    layers: Literal["best", "even", "first"] = "best",
    inner: Literal["energy", "prefix"] = "energy",
    gains: Literal["best", "rms"] = "best",
    mask_ratio: float = 0.75,
    steps: int = 200,
    batch: int = 256,
    lr: float = 1e-3,
    ridge: float = 0.01,
) -> dict[str, Tensor]:
    """Weights of any depth and width from a template; needs ``data``. Raises UserError where no order was computed, and
    for an objective that the source or the other switches do not allow."""
    if data is None:
        raise ValueError("sweet_fitted: needs images")
    template, layers = source.source, best_layers(source) if layers == "best" else layers
    _check(template, order, objective, mask_ratio, ridge)
    if objective == "closed" and (train != "x" or order == "prefix" or start != "sliced"):
        raise UserError(
            "objective=closed: solves for X in principal order only; say train=x and leave out order and start"
        )
    settings = ShortRun(steps, batch, lr, device=device, run=run)
    made = at_depth(template, size.depth, layers)
    assert isinstance(template.core, Tucker) and isinstance(made.core, Tucker)  # the registry lets no other in
    core = made.core.expanded() if train in ("xuv", "all") else made.core
    made = replace(made, core=replace(core, x=start_rows(template.core, core, start, seed)))
    if objective == "closed":
        made = closed_form(
            source, made, size.width, data, budget, inner=inner, layers=layers, seed=seed, ridge=ridge, device=device
        )
        weights = target_weights(made, size.depth, size.width, order=order, inner=inner, seed=seed)
    else:
        teacher = template if objective == "features" else None
        model = Fit(made, source, size, order, inner, train=train, teacher=teacher, mask_ratio=mask_ratio, seed=seed)
        train_on(model, data, source, settings, budget=budget, seed=seed)
        with torch.no_grad():
            weights = {name: value.detach() for name, value in model.weights().items()}
        if teacher is not None:  # its reader was of all channels, not the decoder's
            untrained = target_weights(
                template, size.depth, size.width, order=order, gains=model.gains, layers=layers, seed=seed
            )
            weights = {n: v for n, v in weights.items() if not n.startswith("decoder.")}
            weights |= {n: v for n, v in untrained.items() if n.startswith("decoder.")}
    return with_equal_gains(weights, source, size, layers) if gains == "best" and order == "principal" else weights


def _check(template: Source, order: str, objective: str, mask_ratio: float, ridge: float) -> None:
    if order == "principal" and template.order is None:
        raise UserError("order=principal: this source has no principal order; use order=prefix")
    if objective == "mae" and "pred.weight" not in template.decoder:
        raise UserError("objective=mae: this source has no decoder; use objective=features")
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio={mask_ratio:g}: should be at least 0 and below 1")
    if ridge <= 0:
        raise UserError(f"ridge={ridge:g}: should be above 0")


def start_rows(whole: Tucker, core: Tucker, start: str, seed: int) -> Tensor:
    """X of the target (12 L*, r1) before fitting; ``core`` holds the sliced rows, ``whole`` all of the source's."""
    if start == "interpolated":
        depths = whole.x.view(1, whole.depth, -1).transpose(1, 2)
        rows = F.interpolate(depths, core.depth, mode="linear", align_corners=True)
        return rows.transpose(1, 2).reshape(core.x.shape)
    if start == "random":
        rows = torch.randn(core.x.shape, generator=torch.Generator().manual_seed(seed))
        return rows * (core.x.norm(dim=1) / rows.norm(dim=1))[:, None]
    return core.x


def stored_weights(source: Source) -> dict[str, Tensor]:
    """The whole network in the basis that the source is stored in."""
    absorbed = source.order is not None and source.order.absorbed
    return target_weights(source, source.depth, source.width, order="principal" if absorbed else "prefix")


class Fit(nn.Module):
    """A target whose weights are a function of its scalers; its forward is the loss of an objective.

    ``made`` is the source at the target's depth. With a ``teacher`` the loss is the share of its features' energy that
    the target's features, read linearly, miss; without one it is the MAE loss.
    """

    def __init__(
        self,
        made: Source,
        source: StoredSource,
        size: Size,
        order: str,
        inner: str,
        *,
        train: str,
        teacher: Source | None = None,
        mask_ratio: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if teacher is not None:  # all channels of the features, through what reads the decoder's input
            made = replace(made, decoder={"embed.weight": torch.eye(made.width), "embed.bias": torch.zeros(made.width)})
        self.made, self.size, self.mask_ratio = made, size, mask_ratio
        self.order, self.inner, self.seed = order, inner, seed
        self.gains = best_gains(source, order) if order == "prefix" else None
        self.whole, self.config, self.mae = source.config, source.config.resized(size.depth, size.heads), source.mae
        tensors = {f"core.{name}": value for name, value in made.core.tensors().items()}
        for group in ORDINARY:
            tensors |= {f"{group}.{name}": value for name, value in getattr(made, group).items()}
        self.tensors = as_parameters(tensors, learn=False)
        for name, parameter in self.tensors.items():
            learns = name.startswith(ORDINARY) and train == "all" and name != "stem/pos_embed"
            parameter.requires_grad_(learns or name in (*SCALERS[train], *READER))
        for name in ORDER:  # they follow the model to its device
            self.register_buffer(name, None if made.order is None else getattr(made.order, name), persistent=False)
        self.positions = nn.Parameter(sincos(self.config.grid, source.mae.decoder_width), requires_grad=False)
        known = {} if teacher is None else stored_weights(teacher)
        self.teacher = as_parameters(known, learn=False)

    def source(self) -> Source:
        """The source that the target is cut from, made of this module's tensors."""
        tensors = as_tensors(self.tensors)
        order = self.made.order and replace(self.made.order, **{name: getattr(self, name) for name in ORDER})
        blocks, stem, decoder = (under(f"{group}.", tensors) for group in ORDINARY)
        return replace(
            self.made,
            core=core_of(self.made.core.constraint, under("core.", tensors), self.made.depth, self.whole.own_hidden),
            blocks=blocks,
            stem=stem,
            decoder=decoder,
            order=order,
        )

    def weights(self) -> dict[str, Tensor]:
        """State dict of the target, made of this module's tensors: gradients flow."""
        size, seed = self.size, self.seed
        return target_weights(
            self.source(), size.depth, size.width, order=self.order, gains=self.gains, inner=self.inner, seed=seed
        )

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W), noise (B, N) that chooses the visible patches -> the loss."""
        weights = self.weights()
        if not self.teacher:
            return reconstruct(weights, images, noise, self.config, self.mae, self.positions).loss
        patches = patchify(images, self.config.patch_size)
        keep, _ = split_patches(noise, self.mask_ratio)
        with torch.no_grad():
            known = encode(as_tensors(self.teacher), patches, self.whole, keep=keep).float()
        read = linear(encode(weights, patches, self.config, keep=keep), weights, "decoder.embed")
        return (read.float() - known).square().sum() / known.square().sum()
