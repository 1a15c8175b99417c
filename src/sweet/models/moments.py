"""Second moments inside a source: what the principal order is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sweet.template.order import Order, principal_order
from sweet.template.slices import FC2, PROJ
from sweet.template.source import Source
from sweet.template.target import target_weights

from .config import ViTConfig
from .forward import encode, normed_embedding, patchify

PART = 256  # tokens whose squares are in memory at a time: a cache holds them
PASS = 2048  # tokens of one forward pass on a CPU: more take more memory, and no less time
GROUPS = 4  # of channels, to leave out the upper half of a symmetric product


class Moments(NamedTuple):
    """Of a source, on the CPU.

    ``stream`` (2 L + 1, D, D): E[u u^T] at each norm input, u the stream divided by its root mean square, centred for
    LayerNorm. ``heads`` (L, h) and ``units`` (L, n): the energy that each head and hidden unit adds to the stream.
    ``embedding`` (D, D): of what a norm of the embedding puts out, None where there is none.
    """

    stream: Tensor
    heads: Tensor
    units: Tensor
    embedding: Tensor | None = None


def compute_order(
    source: Source, config: ViTConfig, batches: Iterable[Tensor], *, device: torch.device | None = None
) -> Order:
    """Principal order of a source from normalised images, see :func:`moments_of`."""
    return principal_order(*moments_of(source, config, batches, device=device), centred=source.norm == "layer")


@torch.no_grad()
def moments_of(
    source: Source, config: ViTConfig, batches: Iterable[Tensor], *, device: torch.device | None = None
) -> Moments:
    """Moments of a source over normalised images (B, C, H, W).

    Whole images, no masking, in float32, on ``device``, by default where the source is.
    """
    w = target_weights(source, source.depth, source.width, order="prefix", layers="first")
    w = w if device is None else {name: value.to(device) for name, value in w.items()}
    centred = source.norm == "layer"
    device = w["patch_embed.proj.weight"].device
    stream = torch.zeros(2 * source.depth + 1, source.width, source.width, device=device)
    inner: dict[int, Tensor] = {}  # by the norm before it: of heads (h, d, d), of units (n)
    tokens, embedded, passed = 0, torch.zeros_like(stream[0]), 0

    def add_stream(index: int, value: Tensor) -> None:
        x, shape = value.flatten(0, 1).float(), value.shape[-1:]
        u = F.layer_norm(x, shape, eps=config.eps) if centred else F.rms_norm(x, shape, eps=config.eps)
        add_lower(stream[index], u)

    def add_inner(index: int, value: Tensor) -> None:
        x = value.flatten(0, 1).float()
        if index % 2:
            second = torch.stack([part.square().sum(0) for part in x.split(PART)]).sum(0)
        else:
            heads = x.unflatten(1, (-1, config.head_dim)).transpose(0, 1)
            second = heads.transpose(1, 2) @ heads
        inner[index] = inner[index] + second if index in inner else second

    each = config.patches + config.prefix_tokens
    for images in parts(batches, max(1, PASS // each)) if device.type == "cpu" else batches:
        patches = patchify(images.to(device), config.patch_size)
        encode(w, patches, config, hook=add_stream, inner=add_inner)
        tokens += len(images) * each
        if (out := normed_embedding(w, patches, config)) is not None:
            embedded += out.flatten(0, 1).t() @ out.flatten(0, 1)
            passed += out.shape[0] * out.shape[1]

    heads, units = [], []
    for layer in range(source.depth):
        proj, fc2 = (w[f"blocks.{layer}.{name}"] for name in (PROJ, FC2))
        if centred:  # what a LayerNorm does not see
            proj, fc2 = proj - proj.mean(0), fc2 - fc2.mean(0)
        written = proj.unflatten(1, (-1, config.head_dim))
        heads.append(torch.einsum("rhi,hij,rhj->h", written, inner[2 * layer], written))
        units.append(fc2.square().sum(0) * inner[2 * layer + 1])
    for total in stream:  # one at a time: together they are as large as a block's weights
        total.copy_(total.tril() + total.tril(-1).t())
    by_stream, by_head, by_unit = ((v / tokens).cpu() for v in (stream, torch.stack(heads), torch.stack(units)))
    return Moments(by_stream, by_head, by_unit, (embedded / passed).cpu() if passed else None)


def parts(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same images in equal parts of each batch, of at most ``size`` images."""
    for images in batches:
        yield from images.chunk(-(-len(images) // size))


def add_lower(total: Tensor, x: Tensor) -> None:
    """Add x^T x of x (T, D) to ``total`` (D, D), whose upper half is left unfinished: it is the lower half's mirror."""
    width = len(total)
    step = -(-width // GROUPS)
    for first in range(0, width, step):
        last = min(first + step, width)
        total[first:last, :last].addmm_(x[:, first:last].t(), x[:, :last])
