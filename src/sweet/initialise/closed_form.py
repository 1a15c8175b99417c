"""X of a narrower target by least squares, no gradient step: the kept channels give the readers what those that were
cut away gave, as well as a linear map can.

A reader A (c, D) of the principal stream u = (u1, u2), of which a target keeps u1, is best replaced by
A1 + A2 S21 S11^-1 with S = E[u u^T]. Of the matrices that the core spans we take the nearest in the metric S11; a
writer's columns stay as they are, in the plain metric of its own scale; ``ridge`` pulls towards the template's X.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sweet.data import ImageSource, packed, some, whole_images
from sweet.models.device import resolve_device
from sweet.models.moments import moments_of
from sweet.storage.folders import StoredSource
from sweet.template.slices import FC1, FC2, PROJ, QKV, inner_index, pack
from sweet.template.source import Source, target_layers
from sweet.template.tucker import Tucker

IMAGES = 2000  # second moments need no more


def closed_form(
    source: StoredSource,
    made: Source,
    width: int,
    data: ImageSource,
    budget: int | None,
    *,
    inner: str,
    seed: int,
    layers: str,
    ridge: float,
    device: str,
) -> Source:
    """``made``, the source at the target's depth, with X (12 L*, r1) solved for a target of ``width`` channels.

    Moments are those of at most ``budget`` images of ``data``, drawn by ``seed``, measured on ``device``; ``inner`` and
    ``layers`` are the target's. The source has an order and a Tucker core.
    """
    order, core = made.order, made.core
    assert order is not None and isinstance(core, Tucker)
    config = source.config
    images = packed(some(data, min(budget or IMAGES, IMAGES), seed), config.img_size)
    pixels = whole_images(images, source.data, batch_size=128)
    found = moments_of(source.source, config, pixels, device=resolve_device(device))
    principal = order.rotation.double()
    moments = principal.t() @ found.stream.double() @ principal
    # an absorbed order is the basis that everything is stored in
    rotation = torch.eye(made.width, dtype=torch.double) if order.absorbed else principal
    kept = min(width, made.width) - (made.norm == "layer")  # see embedding_basis
    whole = core.expanded()
    assert whole.u is not None and whole.v is not None
    u = whole.u.double()
    slices_of = whole.core.double() @ whole.v.double().t()  # (r1, r2, D)
    written = (rotation[:, :kept].t() @ u) @ slices_of  # (r1, d, D)
    reads, writes = _columns(made, width, inner)
    x = whole.x.double().view(made.depth, core.slices, -1)
    for row, layer in enumerate(target_layers(config.depth, made.depth, layers)):
        for sublayer, slices in enumerate((range(4), range(4, core.slices))):
            second = moments[2 * layer + sublayer]
            s11 = second[:kept, :kept] + 1e-5 * second.diagonal().mean() * torch.eye(kept, dtype=torch.double)
            carry = torch.linalg.solve(s11, second[:kept, kept:])  # S11^-1 S12 (d, D - d)
            root = torch.linalg.cholesky(s11).t()
            gain = made.blocks[f"norm{sublayer + 1}.weight"][row].double()[:, None]
            read = (rotation.t() @ (gain * u)) @ slices_of  # (r1, D, D)
            for m in slices:
                before = x[row, m]
                reader = torch.einsum("a,adk->dk", before, read[:, :, reads[row, m]])
                writer = torch.einsum("a,adk->dk", before, written[:, :, writes[row, m]])
                x[row, m] = _solve(
                    [root @ read[:, :kept, reads[row, m]], written[:, :, writes[row, m]]],
                    [root @ (reader[:kept] + carry @ reader[kept:]), writer],
                    before,
                    ridge,
                )
    return replace(made, core=replace(core, x=x.flatten(0, 1).float()))


def _columns(made: Source, width: int, inner: str) -> tuple[Tensor, Tensor]:
    """Of each slice's columns, of those that the target keeps (L*, 12, D): which read the stream, which write to it."""
    narrow = min(width, made.width)
    if inner == "energy" and made.order is not None:
        channels, units = made.order.highest_energy(narrow, made.hidden(narrow))
    else:
        channels, units = (
            inner_index(made.width, narrow, made.mlp, n, made.units(narrow)).expand(made.depth, -1) for n in (PROJ, FC2)
        )
    in_heads = torch.zeros(made.depth, made.width).scatter(1, channels, 1.0)
    in_mlp = torch.zeros(made.depth, made.hidden(made.width)).scatter(1, units, 1.0)
    matrices = 2 if made.mlp == "swiglu" else 1
    reads = {QKV: in_heads.repeat(1, 3)[..., None], FC1: in_mlp.repeat(1, matrices)[..., None]}
    writes = {PROJ: in_heads[:, None], FC2: in_mlp[:, None]}

    def columns(*, read: bool) -> Tensor:
        return pack({n: v * (read == (n in reads)) for n, v in (reads | writes).items()}, made.mlp)[:, :, 0].bool()

    return columns(read=True), columns(read=False)


def _solve(bases: list[Tensor], goals: list[Tensor], before: Tensor, ridge: float) -> Tensor:
    """argmin_x sum_i |sum_a x_a B_i,a - goal_i|^2 / |goal_i|^2 + ridge |x - before|^2 / |before|^2."""
    weight = ridge / before.square().sum().clamp_min(1e-12)
    gram, right = weight * torch.eye(len(before), dtype=torch.double), weight * before
    for basis, goal in zip(bases, goals, strict=True):
        scale = goal.square().sum()
        if scale > 0:
            flat = basis.flatten(1)
            gram = gram + flat @ flat.t() / scale
            right = right + flat @ goal.flatten() / scale
    return torch.linalg.solve(gram, right)
