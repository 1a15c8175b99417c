"""Second moments of the residual stream of a source: what the principal order is computed from (methods 16)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sweet.template.order import Order, principal_order
from sweet.template.target import Source, target_weights

from .config import ViTConfig
from .forward import encode, patchify


def compute_order(
    source: Source, config: ViTConfig, batches: Iterable[Tensor], *, device: torch.device | None = None
) -> Order:
    """Principal order of a source from normalised images, see :func:`stream_moments`."""
    moments = stream_moments(source, config, batches, device=device)
    return principal_order(moments, centred=source.norm == "layer")


@torch.no_grad()
def stream_moments(
    source: Source, config: ViTConfig, batches: Iterable[Tensor], *, device: torch.device | None = None
) -> Tensor:
    """E[u u^T] (2 L + 1, D, D) at each norm input, u the stream divided by its root mean square, centred for LayerNorm.

    From normalised images (B, C, H, W): whole, no masking, in float32, on ``device``, by default where the source is.
    """
    w = target_weights(source, source.depth, source.width, order="prefix", layers="first")
    w = w if device is None else {name: value.to(device) for name, value in w.items()}
    centred = source.norm == "layer"
    device = w["cls_token"].device
    moments = torch.zeros(2 * source.depth + 1, source.width, source.width, device=device)
    tokens = 0

    def tap(index: int, stream: Tensor) -> None:
        x = stream.flatten(0, 1).float()
        if centred:
            x = x - x.mean(-1, keepdim=True)
        u = x * (x.square().mean(-1, keepdim=True) + config.eps).rsqrt()
        moments[index] += u.t() @ u

    for images in batches:
        encode(w, patchify(images.to(device), config.patch_size), config, tap=tap)
        tokens += len(images) * (config.patches + 1)
    return (moments / tokens).cpu()
