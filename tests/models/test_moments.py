"""The principal order of a network, measured on its stream."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sweet.models.forward import encode, patchify
from sweet.models.moments import compute_order
from sweet.storage.folders import StoredSource
from sweet.template.target import target_weights

both_families = pytest.mark.parametrize("family", ["eva", "vit"])


def images(seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@both_families
def test_an_order_is_orthogonal_signed_and_holds_all_energy(
    make_source: Callable[..., StoredSource], family: str
) -> None:
    stored = make_source(family)
    order = compute_order(stored.source, stored.config, [images(0), images(1)])
    width = stored.config.width
    torch.testing.assert_close(order.rotation.t() @ order.rotation, torch.eye(width), rtol=0, atol=1e-6)
    assert bool((order.rotation.gather(0, order.rotation.abs().argmax(0, keepdim=True)) > 0).all())
    assert order.energy.shape == (2 * 3 + 1, width)
    torch.testing.assert_close(order.energy.sum(1), torch.full((7,), float(width)), rtol=1e-4, atol=0)
    if family == "vit":
        torch.testing.assert_close(order.rotation[:, -1], torch.full((width,), width**-0.5))


@both_families
def test_energy_is_what_the_norms_see(make_source: Callable[..., StoredSource], family: str) -> None:
    """Recomputed from the streams themselves, one norm at a time."""
    stored = make_source(family, "none")
    batch = images(2, 8)
    order = compute_order(stored.source, stored.config, [batch])
    streams: dict[int, Tensor] = {}
    w = target_weights(stored.source, 3, 24, order="prefix")
    encode(w, patchify(batch, 4), stored.config, hook=streams.__setitem__)
    assert sorted(streams) == list(range(7))
    for index, stream in streams.items():
        if family == "vit":
            stream = stream - stream.mean(-1, keepdim=True)
        u = stream / stream.square().mean(-1, keepdim=True).sqrt()
        expected = (u @ order.rotation).square().mean((0, 1))
        torch.testing.assert_close(order.energy[index], expected, rtol=1e-3, atol=1e-4)


@both_families
def test_parts_are_ordered_by_what_leaving_them_out_changes(
    make_source: Callable[..., StoredSource], family: str
) -> None:
    """Each head and hidden unit of a layer is silenced in turn; nothing before its writer changes, so the stream misses
    just what the part added."""
    stored = make_source(family, "none")
    batch, layer = images(4, 8), 1
    order = compute_order(stored.source, stored.config, [batch])
    w = target_weights(stored.source, 3, 24, order="prefix")

    def stream(weights: dict[str, Tensor], norm: int) -> Tensor:
        streams: dict[int, Tensor] = {}
        encode(weights, patchify(batch, 4), stored.config, hook=streams.__setitem__)
        x = streams[norm]
        return x - x.mean(-1, keepdim=True) if family == "vit" else x

    for name, norm, found, width in (
        (f"blocks.{layer}.attn.proj.weight", 2 * layer + 1, order.heads, 8),
        (f"blocks.{layer}.mlp.fc2.weight", 2 * layer + 2, order.units, 1),
    ):
        assert found.shape == (3, w[name].shape[1] // width)
        lost = []
        for part in range(found.shape[1]):
            silenced = w[name].clone()
            silenced[:, part * width : (part + 1) * width] = 0
            lost.append((stream(w, norm) - stream({**w, name: silenced}, norm)).square().sum().item())
        ordered = [lost[part] for part in found[layer].tolist()]
        assert ordered[0] > 1.1 * ordered[-1]
        assert all(a >= 0.999 * b for a, b in pairwise(ordered))


@both_families
def test_batches_only_split_the_work(make_source: Callable[..., StoredSource], family: str) -> None:
    stored = make_source(family)
    batch = images(3, 8)
    whole, parts = (compute_order(stored.source, stored.config, batches) for batches in ([batch], batch.split(3)))
    torch.testing.assert_close(whole.energy, parts.energy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.rotation, parts.rotation, rtol=0, atol=1e-3)
