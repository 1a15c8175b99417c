"""A source becomes the weights of a network of any depth and width (Algorithm 1 of the paper, "direct").

Everything is a linear map of the residual stream. With R the map that a reader applies to it and T the map that a
writer applies (both D x d), readers become W R and writers T^T W:

* ``prefix`` order: R = T = the first d axes, norm gains are sliced along (the paper's slice of U).
* ``principal`` order: R = diag(gain) Q_d and T = Q_d; each gain becomes one constant, sqrt(kept * D / d), because d
  channels carry only part of the energy that the norm divides by. At d = D the function is unchanged. (``gains``
  sets this constant apart, for comparison: ``rms``, the ``sqrt`` of D / d, or ``none``, which is the prefix order's.)
  Inside a block the ``loudest`` heads and hidden units of each layer stay; ``inner="prefix"`` takes the first.

Beyond the source: a new channel is written with zeros and read by a random unit mixture of the old channels' readers, a
new head or hidden unit copies an old one and is written with zeros, so a wider network starts as the same function
(exactly so with RMSNorm, and with LayerNorm in principal order). A deeper one repeats blocks evenly and divides what
each copy adds to the stream by the number of copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .constraints import Core, Kronecker, Linear, on_a_line
from .order import Order, embedding_basis
from .sizes import hidden_features
from .slices import FC1, FC2, PROJ, QKV, select_inner, select_parts, unstack_blocks
from .tucker import Full, Tucker, pick

ORDERS = ("principal", "prefix")
LAYER_RULES = ("even", "first")
GAINS = ("rms", "sqrt", "none")
INNER = ("loudest", "prefix")
INNER_BIASES = ("attn.qkv.bias", "mlp.fc1.bias")
WRITER_BIASES = ("attn.proj.bias", "mlp.fc2.bias")


@dataclass
class Source:
    """Everything a target is made from.

    ``blocks`` are the ordinary parameters of the blocks, stacked {name: (L, ...)}: biases and norm gains. Beside a
    Linear core they are (2, ...), base and slope. ``stem`` are those outside the blocks under timm's names: patch
    embedding, class token, positions, final norm. ``decoder`` is the MAE decoder; its ``embed.weight`` (decoder width,
    D) reads the stream after the final norm. ``mlp`` is ``swiglu`` or ``gelu``, ``norm`` is ``rms`` or ``layer``.
    ``copies``, of a source that was made deeper, says how many blocks were made of the one that block i comes from:
    what it adds to the stream is divided by that.
    """

    core: Core
    blocks: dict[str, Tensor]
    stem: dict[str, Tensor]
    mlp: str
    norm: str
    decoder: dict[str, Tensor] = field(default_factory=dict)
    order: Order | None = None
    copies: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        return self.core.depth

    @property
    def width(self) -> int:
        return self.core.width

    @property
    def unit_gains(self) -> bool:
        """Whether every norm is a plain RMSNorm, so that a rotation commutes with it and nothing is to be folded."""
        gains = [v for k, v in (self.blocks | self.stem).items() if k.startswith("norm")]
        return self.norm == "rms" and all(bool((gain == 1).all()) for gain in gains)


def untiled(source: Source) -> Source:
    """A source of Kronecker tiles as the dense source of the same weights; any other as it is."""
    if not isinstance(source.core, Kronecker):
        return source
    return replace(source, core=Full(source.core.stacked(source.width, source.mlp)))


def absorb(source: Source) -> Source:
    """The same source stored in its principal order and with U and V in the core, where that costs nothing.

    Then a target is a plain slice and a ViT-B is made as fast as memory allows. The rotation is absorbed when all
    norm gains are one (recipe key ``model.norm_gain: false``) and the core is a Tucker.
    """
    if not isinstance(source.core, Tucker):
        return source
    core, order = source.core, source.order
    if order is None or order.absorbed or core.u is None or not source.unit_gains:
        return replace(source, core=core.contracted())
    rotated = _Cut(source, source.width, order, seed=0)
    return replace(
        source,
        core=Tucker(core.core, core.x, order.rotation.t() @ core.u, core.v).contracted(),
        blocks=source.blocks | {name: rotated.written(source.blocks[name]) for name in WRITER_BIASES},
        stem=rotated.stem(),
        decoder={name.removeprefix("decoder."): value for name, value in rotated.decoder().items()},
        order=replace(order, absorbed=True),
    )


def target_layers(source_depth: int, depth: int, rule: str) -> list[int]:
    """Layers of the source that a target takes; a deeper target repeats each one or more times.

    >>> target_layers(12, 3, "even"), target_layers(12, 3, "first"), target_layers(2, 5, "even")
    ([0, 6, 11], [0, 1, 2], [0, 0, 0, 1, 1])
    """
    if rule not in LAYER_RULES:
        raise ValueError(f"unknown layer rule {rule!r}, expected one of {', '.join(LAYER_RULES)}")
    if depth > source_depth:
        return [i * source_depth // depth for i in range(depth)]
    if rule == "first" or depth == 1:
        return list(range(depth))
    return [int(i * (source_depth - 1) / (depth - 1) + 0.5) for i in range(depth)]


def at_depth(source: Source, depth: int, layers: str) -> Source:
    """The same source with ``depth`` blocks, by a rule of :func:`target_layers`; its width is left alone.

    A Linear source has a rule of its own for any depth, its own included: it becomes a dense one.
    """
    chosen = target_layers(source.depth, depth, layers)
    line = isinstance(source.core, Linear)
    if chosen == list(range(source.depth)) and not line:
        return source
    order = source.order
    if order is not None:
        norms = [2 * layer + part for layer in chosen for part in (0, 1)] + [2 * source.depth]
        heads, units = order.heads[chosen], order.units[chosen]
        order = replace(order, energy=order.energy[norms], heads=heads, units=units)
    return replace(
        source,
        core=source.core.at_layers(chosen),
        blocks={n: on_a_line(v, depth) if line else pick(v, chosen) for n, v in source.blocks.items()},
        order=order,
        copies=() if line else tuple(chosen.count(layer) for layer in chosen),
    )


def target_weights(
    source: Source,
    depth: int,
    width: int,
    *,
    inner_width: int | None = None,
    order: str = "principal",
    layers: str = "even",
    gains: str | None = None,
    inner: str = "loudest",
    seed: int = 0,
) -> dict[str, Tensor]:
    """State dict (timm's names, no head) of a ViT with ``depth`` blocks and ``width`` channels made from a source.

    ``inner_width`` (default ``width``) sets the inner side apart, for sub-networks of training. Decoder tensors
    come along as ``decoder.<name>``. Differentiable in every tensor of the source. ``seed`` draws the readers of
    channels that the source does not have. Raises ValueError for an unknown order or layer rule, and for
    ``order="principal"`` on a source whose order was not computed.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}, expected one of {', '.join(ORDERS)}")
    if order == "principal" and source.order is None:
        raise ValueError("this source has no principal order; use order='prefix'")
    if gains not in (None, *GAINS):
        raise ValueError(f"unknown gains {gains!r}, expected one of {', '.join(GAINS)}")
    if inner not in INNER:
        raise ValueError(f"unknown inner {inner!r}, expected one of {', '.join(INNER)}")
    wide = width if inner_width is None else inner_width
    source = at_depth(source, depth, layers)
    cut = _Cut(source, width, source.order if order == "principal" else None, seed, gains)

    blocks = source.blocks
    core = source.core
    if isinstance(core, Tucker) and cut.plain:
        core = core.narrowed(width)  # so that nothing is made only to be cut away
    weights = _inner_side(source, core, wide, loudest=order == "principal" and inner == "loudest")
    result = {}
    for part, (norm, matrix) in enumerate((("norm1", QKV), ("norm2", FC1))):
        gain, shift = blocks[f"{norm}.weight"], blocks.get(f"{norm}.bias")
        bias = matrix.replace("weight", "bias")
        result[matrix] = cut.reader(weights[matrix], gain)
        result[bias] = weights[bias] + cut.reader_bias(weights[matrix], shift)
        result[f"{norm}.weight"] = cut.gain(gain, slice(part, 2 * depth, 2))
        if shift is not None:
            result[f"{norm}.bias"] = cut.shift(shift)
    for matrix, bias in zip((PROJ, FC2), WRITER_BIASES, strict=True):
        result[matrix] = cut.writer(weights[matrix])
        result[bias] = cut.written(blocks[bias])
    if wide > source.width:
        result.update(
            select_inner(
                {name: result[name] for name in (QKV, PROJ, FC1, FC2, *INNER_BIASES)},
                source.width,
                wide,
                source.mlp,
            )
        )
    if any(count > 1 for count in source.copies):
        share = 1.0 / result[PROJ].new_tensor(source.copies)
        for name in (PROJ, FC2, *WRITER_BIASES):
            result[name] = result[name] * share.view(-1, *[1] * (result[name].dim() - 1))

    return unstack_blocks(result) | cut.stem() | cut.decoder()


def masked_weights(
    source: Source, depth: int, live: int, inner_width: int, *, layers: str = "even"
) -> dict[str, Tensor]:
    """Eq. 8: a network of the source's width whose matrices come from masked U and V, and nothing else is touched.

    Only what the masks leave is made: readers (n, ``live``) of the first channels of the stream, writers (``live``, n),
    ``inner_width`` channels inside a block. Norms, the writers' biases, stem and decoder are whole. What dead heads and
    hidden units compute from their biases reaches nothing, so they are left out. The basis is the stored one.
    """
    whole = at_depth(replace(source, order=None), depth, layers)
    weights = target_weights(whole, depth, live, inner_width=inner_width, order="prefix")
    untouched = {n: v for n, v in whole.blocks.items() if n.startswith("norm") or n in WRITER_BIASES}
    decoder = {f"decoder.{name}": value for name, value in source.decoder.items()}
    return weights | unstack_blocks(untouched) | source.stem | decoder


def _inner_side(source: Source, core: Core, width: int, *, loudest: bool) -> dict[str, Tensor]:
    """Stacked weights of ``core`` and inner biases, cut to ``width`` inside the blocks where that is narrower."""
    biases = {name: source.blocks[name] for name in INNER_BIASES}
    if width < source.width and not loudest:
        return core.stacked(width, source.mlp) | select_inner(biases, source.width, width, source.mlp)
    whole = core.stacked(source.width, source.mlp) | biases
    if width >= source.width or source.order is None:
        return whole
    channels, units = source.order.loudest(width, hidden_features(width, source.mlp))
    return select_parts(whole, channels.to(whole[PROJ].device), units.to(whole[PROJ].device))


class _Cut:
    """The maps of the residual stream D -> d of one target, applied to everything that touches the stream."""

    def __init__(self, source: Source, width: int, order: Order | None, seed: int, gains: str | None = None) -> None:
        self.source, self.width, self.order = source, width, order
        self.gains = gains or ("none" if order is None else "rms")
        self.read, self.write = _stream_maps(source, width, principal=order is not None, seed=seed)
        self.fold = order is not None and not source.unit_gains
        self.plain = self.read is None and self.write is None and not self.fold

    def written(self, value: Tensor) -> Tensor:
        """(..., D) -> (..., d): a vector that is added to the stream."""
        return _along(value, self.write, self.width)

    def writer(self, weight: Tensor) -> Tensor:
        """(n, R, c) -> (n, d, c): a matrix that adds to the stream, in the core's residual coordinates."""
        u = self.source.core.u
        if u is not None:
            return self.written(u.t()).t() @ weight
        return weight[:, : self.width] if self.write is None else self.write.t() @ weight

    def reader(self, weight: Tensor, gain: Tensor) -> Tensor:
        """(n, c, R) -> (n, c, d): a matrix that reads the stream; in principal order the norm's gain is folded in."""
        u = self.source.core.u
        if u is None:
            folded = weight * gain[:, None] if self.fold else weight
            return _along(folded, self.read, self.width)
        basis = u.t() * gain[:, None] if self.fold else u.t()
        return weight @ _along(basis, self.read, self.width)

    def reader_bias(self, weight: Tensor, shift: Tensor | None) -> Tensor | float:
        """What a LayerNorm's bias adds to the outputs of the matrix behind it (n, c); zero unless folded."""
        if shift is None or not self.fold:
            return 0.0
        u = self.source.core.u
        return torch.einsum("ncr,nr->nc", weight, shift if u is None else shift @ u)

    def gain(self, gain: Tensor, norms: slice) -> Tensor:
        """(n, D) -> (n, d): norm gains. ``norms`` number the norm inputs, see :class:`Order`."""
        source_width = self.source.width
        scale: Tensor | float = 1.0
        if self.gains == "rms" and self.order is not None:
            kept = self.order.kept(min(self.width, source_width) - (self.source.norm == "layer"))[norms]
            scale = (kept * source_width / self.width).sqrt()[:, None]
        elif self.gains == "sqrt":
            scale = (source_width / self.width) ** 0.5
        if self.order is not None:
            return gain.new_ones(len(gain), self.width) * scale
        if self.width <= source_width:
            return gain[:, : self.width] * scale if self.gains != "none" else gain[:, : self.width]
        new = gain.new_ones(len(gain), self.width - source_width)
        return torch.cat([gain, new], 1) * (source_width / self.width) ** 0.5

    def shift(self, shift: Tensor) -> Tensor:
        """(n, D) -> (n, d): norm biases; zero once folded into the readers."""
        if self.order is not None:
            return shift.new_zeros(len(shift), self.width)
        return _along(shift, self.write, self.width)

    def stem(self) -> dict[str, Tensor]:
        stem = self.source.stem
        result = {}
        for name, value in stem.items():
            if name == "norm.weight":
                result[name] = self.gain(value[None], slice(2 * self.source.depth, None))[0]
            elif name == "norm.bias":
                result[name] = self.shift(value[None])[0]
            elif name == "patch_embed.proj.weight":
                result[name] = self.written(value.movedim(0, -1)).movedim(-1, 0)
            else:
                result[name] = self.written(value)
        return result

    def decoder(self) -> dict[str, Tensor]:
        result = {f"decoder.{name}": value for name, value in self.source.decoder.items()}
        if result:
            weight = result["decoder.embed.weight"]
            if self.fold:
                if "norm.bias" in self.source.stem:
                    result["decoder.embed.bias"] = result["decoder.embed.bias"] + weight @ self.source.stem["norm.bias"]
                weight = weight * self.source.stem["norm.weight"]
            result["decoder.embed.weight"] = _along(weight, self.read, self.width)
        return result


def _along(value: Tensor, maps: Tensor | None, width: int) -> Tensor:
    return value[..., :width] if maps is None else value @ maps


def _stream_maps(source: Source, width: int, *, principal: bool, seed: int) -> tuple[Tensor | None, Tensor | None]:
    """Maps (D, d) of readers and writers; None is the first d axes, which slicing does for nothing."""
    centred = principal and source.norm == "layer"
    directions = None  # the axes as they are stored
    if source.order is not None and principal != source.order.absorbed:
        directions = source.order.rotation if principal else source.order.rotation.t()
    if directions is None and width <= source.width and not centred:
        return None, None
    device = source.stem["cls_token"].device
    basis = embedding_basis(width, centred=centred).to(device)
    known = min(basis.shape[1], source.width - centred)
    directions = torch.eye(source.width, device=device) if directions is None else directions
    write = directions[:, :known] @ basis[:, :known].t()
    if known == basis.shape[1]:
        return write, write
    generator = torch.Generator().manual_seed(seed)
    mixtures = torch.randn(source.width, basis.shape[1] - known, generator=generator).to(device)
    return write + (mixtures / mixtures.norm(dim=0)) @ basis[:, known:].t(), write
