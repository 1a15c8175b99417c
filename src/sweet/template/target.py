"""A source becomes the weights of a network of any depth and width (Algorithm 1 of the paper, "direct").

Everything is a linear map of the residual stream. With R the map that a reader applies to it and T the map that a
writer applies (both D x d), readers become W R and writers T^T W:

* ``prefix`` order: R = T = the first d axes, norm gains are sliced along (the paper's slice of U).
* ``principal`` order: R = diag(gain) Q_d and T = Q_d; each gain becomes one constant, sqrt(kept * D / d), because d
  channels carry only part of the energy that the norm divides by. At d = D the function is unchanged (less the mean
  over channels, where a network of LayerNorms puts out its stream without a norm). (``gains``
  sets this constant apart, for comparison: ``rms``, the ``sqrt`` of D / d, or ``none``, which is the prefix order's.)
  Inside a block the heads and hidden units of the highest energy stay, layer by layer; ``inner="prefix"`` takes the
  first ones instead.

Beyond the source: a new channel is written with zeros and read by a random unit mixture of the old channels' readers, a
new head or hidden unit copies an old one and is written with zeros, so a wider network starts as the same function
(exactly so with RMSNorm, and with LayerNorm in principal order; nearly so where a norm inside attention or MLP sees the
copies). A deeper one repeats blocks evenly and divides what each copy adds to the stream by the number of copies.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .constraints import Core
from .factored import left_apart
from .slices import (
    COMMON,
    FC1,
    FC2,
    HEAD_AXIS,
    INNER_BIASES,
    INNER_NORMS,
    MATRICES,
    PROJ,
    QKV,
    WRITER_BIASES,
    select_inner,
    select_inner_of_layers,
    under,
    unstack_blocks,
)
from .source import Source, at_depth
from .stream import StreamMaps
from .tucker import Tucker

INSIDE = (*INNER_BIASES, *INNER_NORMS, *HEAD_AXIS)
ORDERS = ("principal", "prefix")
GAINS = ("rms", "sqrt", "none")
INNER = ("energy", "prefix")


def absorb(source: Source) -> Source:
    """The same source stored in its principal order and with U and V in the core, where that costs nothing.

    Then a target is a plain slice and a ViT-B is made as fast as memory allows. The rotation is absorbed when all
    norm gains are one (recipe key ``model.norm_gain: false``) and the core is a Tucker.
    """
    if not isinstance(source.core, Tucker):
        return source
    core, order = source.core, source.order
    if order is None or order.absorbed or not source.unit_gains:
        return replace(source, core=core.contracted())
    rotated = StreamMaps(source, source.width, order, seed=0)
    core = core.expanded()
    assert core.u is not None
    return replace(
        source,
        core=replace(core, u=order.rotation.t() @ core.u).contracted(),
        blocks=source.blocks | {name: rotated.written(source.blocks[name]) for name in WRITER_BIASES},
        stem=rotated.stem(),
        decoder=under("decoder.", rotated.decoder()),
        order=replace(order, absorbed=True),
    )


def as_trained(source: Source) -> Source:
    """The same source in the basis that it was trained in: what :func:`absorb` rotated is rotated back."""
    core, order = source.core, source.order
    if not isinstance(core, Tucker) or order is None or not order.absorbed:
        return source
    back = StreamMaps(source, source.width, None, seed=0)
    trained = back.writer(core.core, None) if core.u is None else core.core
    return replace(
        source,
        core=replace(core, core=trained, u=None if core.u is None else order.rotation @ core.u),
        blocks=source.blocks | {name: back.written(source.blocks[name]) for name in WRITER_BIASES},
        stem=back.stem(),
        decoder=under("decoder.", back.decoder()),
        order=replace(order, absorbed=False),
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
    inner: str = "energy",
    seed: int = 0,
    tokens: int | None = None,
) -> dict[str, Tensor]:
    """State dict (timm's names, no head) of a ViT with ``depth`` blocks and ``width`` channels made from a source.

    ``inner_width`` (default ``width``) sets the inner side apart, for sub-networks of training. Decoder tensors
    come along as ``decoder.<name>``. Differentiable in every tensor of the source. ``seed`` draws the readers of
    channels that the source does not have. ``order``, ``layers``, ``gains`` and ``inner`` as above, ``gains=None`` is
    the order's own. ``tokens``, how many the weights are for, leaves matrices in factors where that takes fewer
    products (:mod:`.factored`): ``<matrix>.weight`` has r2 entries along the stream, ``<matrix>.basis`` is U (d, r2).
    Raises ValueError for an unknown one of the words, and for ``order="principal"`` on a source without an order.
    """
    _check_words(source, order, gains, inner)
    wide = width if inner_width is None else inner_width
    source = at_depth(source, depth, layers)
    stream = StreamMaps(source, width, source.order if order == "principal" else None, seed, gains)

    blocks = source.blocks
    core, apart = source.core, frozenset[str]()
    if isinstance(core, Tucker) and stream.plain:
        if tokens is not None:
            apart = left_apart(core, tokens, width, wide, source.hidden(wide), source.mlp)
        core = core if apart else core.narrowed(width, wide)  # so that nothing is made only to be cut away
    u = core.u
    weights = _inner_side(source, core, wide, by_energy=order == "principal" and inner == "energy")
    result = {name: value for name, value in weights.items() if name in (*INNER_NORMS, *HEAD_AXIS)}
    result |= {name: blocks[name] for name in COMMON if name in blocks}
    for sublayer, (norm, matrix) in enumerate((("norm1", QKV), ("norm2", FC1))):
        gain, shift = blocks[f"{norm}.weight"], blocks.get(f"{norm}.bias")
        bias = matrix.replace("weight", "bias")
        result[matrix] = weights[matrix] if matrix in apart else stream.reader(weights[matrix], gain, u)
        result[bias] = weights[bias] + stream.reader_bias(weights[matrix], shift)
        result[f"{norm}.weight"] = stream.gain(gain, slice(sublayer, 2 * depth, 2))
        if shift is not None:
            result[f"{norm}.bias"] = stream.shift(shift)
    for matrix, bias in zip((PROJ, FC2), WRITER_BIASES, strict=True):
        result[matrix] = weights[matrix] if matrix in apart else stream.writer(weights[matrix], u)
        result[bias] = stream.written(blocks[bias])
    if wide > source.width:
        inside = {name: result[name] for name in (*MATRICES, *INSIDE) if name in result}
        result |= select_inner(inside, source.width, wide, source.mlp, source.units(wide))
    if any(count > 1 for count in source.copies):
        share = 1.0 / result[PROJ].new_tensor(source.copies)
        for name in (PROJ, FC2, *WRITER_BIASES):
            result[name] = result[name] * share.view(-1, *[1] * (result[name].dim() - 1))

    if u is not None:
        result |= {name.replace("weight", "basis"): u[:width].expand(depth, -1, -1) for name in apart}

    return unstack_blocks(result) | stream.stem() | stream.decoder()


def _check_words(source: Source, order: str, gains: str | None, inner: str) -> None:
    for option, value, known in (("order", order, ORDERS), ("gains", gains, (None, *GAINS)), ("inner", inner, INNER)):
        if value not in known:
            raise ValueError(f"unknown {option} {value!r}, expected one of {', '.join(filter(None, known))}")
    if order == "principal" and source.order is None:
        raise ValueError("this source has no principal order; use order='prefix'")


def masked_weights(
    source: Source, depth: int, live: int, inner_width: int, *, layers: str = "even", tokens: int | None = None
) -> dict[str, Tensor]:
    """Eq. 8: a network of the source's width whose matrices come from masked U and V, and nothing else is touched.

    Only what the masks leave is made: readers (n, ``live``) of the first channels of the stream, writers (``live``, n),
    ``inner_width`` channels inside a block. Norms, the writers' biases, stem and decoder are whole. What dead heads and
    hidden units compute from their biases reaches nothing, so they are left out. The basis is the stored one.
    ``tokens`` as in :func:`target_weights`.
    """
    whole = at_depth(replace(source, order=None), depth, layers)
    weights = target_weights(whole, depth, live, inner_width=inner_width, order="prefix", tokens=tokens)
    untouched = {n: v for n, v in whole.blocks.items() if n.startswith("norm") or n in WRITER_BIASES}
    decoder = {f"decoder.{name}": value for name, value in source.decoder.items()}
    return weights | unstack_blocks(untouched) | source.stem | decoder


def _inner_side(source: Source, core: Core, width: int, *, by_energy: bool) -> dict[str, Tensor]:
    """Stacked weights of ``core``, inner biases and norms, cut to ``width`` inside the blocks if that is narrower."""
    biases = {name: source.blocks[name] for name in INSIDE if name in source.blocks}
    if width < source.width and not by_energy:
        counts = source.units(width)
        return core.stacked(width, source.mlp) | select_inner(biases, source.width, width, source.mlp, counts)
    whole = core.stacked(source.width, source.mlp) | biases
    if width >= source.width or source.order is None:
        return whole
    channels, units = source.order.highest_energy(width, source.hidden(width))
    return select_inner_of_layers(whole, channels.to(whole[PROJ].device), units.to(whole[PROJ].device))
