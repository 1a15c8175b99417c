"""The principal order of a network, measured on its stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sweet.models.forward import encode, patchify
from sweet.models.moments import compute_order
from sweet.models.store import StoredSource
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
    encode(w, patchify(batch, 4), stored.config, tap=streams.__setitem__)
    assert sorted(streams) == list(range(7))
    for index, stream in streams.items():
        if family == "vit":
            stream = stream - stream.mean(-1, keepdim=True)
        u = stream / stream.square().mean(-1, keepdim=True).sqrt()
        expected = (u @ order.rotation).square().mean((0, 1))
        torch.testing.assert_close(order.energy[index], expected, rtol=1e-3, atol=1e-4)


@both_families
def test_batches_only_split_the_work(make_source: Callable[..., StoredSource], family: str) -> None:
    stored = make_source(family)
    batch = images(3, 8)
    whole, parts = (compute_order(stored.source, stored.config, batches) for batches in ([batch], batch.split(3)))
    torch.testing.assert_close(whole.energy, parts.energy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.rotation, parts.rotation, rtol=0, atol=1e-3)
