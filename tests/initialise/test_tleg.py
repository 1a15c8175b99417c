"""The linear rule: exact where it holds, the best line where it does not, and a special case of Tucker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sweet.initialise.apply import initialise
from sweet.initialise.tleg import fitted, linear_fit
from sweet.models.mae import source_from_state
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size
from sweet.template.slices import SLICES
from sweet.template.target import target_weights
from sweet.template.tucker import Tucker

MakeSource = Callable[..., StoredSource]


def scalers(depth: int) -> Tensor:
    """X of the rule: row (l, c) has 1 in column (base, c) and l / L in column (slope, c)."""
    eye = torch.eye(SLICES)
    return torch.cat([torch.cat([eye, layer / depth * eye], 1) for layer in range(depth)])


def linear_source(make_source: MakeSource, family: str) -> StoredSource:
    """A template that obeys the rule, everything outside its core included."""
    stored = make_source(family, depth=4)
    width = stored.config.width
    core = torch.randn(2 * SLICES, width, width, generator=torch.Generator().manual_seed(3)) * 0.2
    blocks = {}
    for name, rows in stored.source.blocks.items():
        blocks[name] = torch.stack([rows[0] + layer / 4 * rows[1] for layer in range(4)])
    return replace(stored, source=replace(stored.source, core=Tucker(core, scalers(4), None, None), blocks=blocks))


@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize(("depth", "heads"), [(4, 3), (2, 2), (1, 1), (7, 3), (5, 4)])
def test_it_is_tucker_with_a_fixed_x(make_source: MakeSource, family: str, depth: int, heads: int) -> None:
    linear = linear_source(make_source, family)
    config = linear.config
    state = target_weights(linear.source, 4, config.width, order="prefix")
    dense = replace(linear, source=source_from_state(state, config))
    fitted = initialise("tleg", dense, Size(depth, heads, config.head_dim))
    # the same network by the Tucker product: only X knows how deep it is
    core = replace(linear.source.core, x=scalers(depth))
    blocks = {
        name: torch.stack([rows[0] + layer / depth * (rows[1] - rows[0]) * 4 for layer in range(depth)])
        for name, rows in linear.source.blocks.items()
    }
    deep = replace(linear.source, core=core, blocks=blocks)
    expected = target_weights(deep, depth, heads * config.head_dim, order="prefix")
    assert fitted.keys() == expected.keys()
    for name in fitted:
        torch.testing.assert_close(fitted[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_source_on_a_line_comes_back(make_source: MakeSource) -> None:
    linear = linear_source(make_source, "vit")
    state = target_weights(linear.source, 4, 24, order="prefix")
    dense = replace(linear, source=source_from_state(state, linear.config))
    again = initialise("tleg", dense, Size(4, 3, 8))
    for name in state:
        torch.testing.assert_close(again[name], state[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize(("depth", "heads"), [(3, 3), (1, 2), (5, 1), (7, 4)])
def test_a_linear_source_is_used_as_it_is(make_source: MakeSource, family: str, depth: int, heads: int) -> None:
    stored = make_source(family, "linear", ordered=True)
    made = initialise("tleg", stored, Size(depth, heads, 8))
    by_hand = {
        f"blocks.{layer}.{name}": (base + layer / depth * slope)
        for name, (base, slope) in (stored.source.core.tensors() | stored.source.blocks).items()
        for layer in range(depth)
    }
    full = replace(
        stored, source=source_from_state(by_hand | stored.source.stem, stored.config.resized(depth, 3))
    ).source
    full.decoder = stored.source.decoder
    expected = target_weights(full, depth, heads * 8, order="prefix")
    assert made.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value)


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_the_fit_of_a_linear_source_is_that_source(make_source: MakeSource, family: str) -> None:
    linear = make_source(family, "linear")
    dense = source_from_state(target_weights(linear.source, 3, 24, order="prefix"), linear.config)
    again = fitted(dense)
    assert again.core.constraint == "linear" and again.depth == 3
    for name, value in (linear.source.core.tensors() | linear.source.blocks).items():
        torch.testing.assert_close((again.core.tensors() | again.blocks)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 5, 12])
def test_the_fit_is_least_squares(depth: int) -> None:
    rows = torch.randn(depth, 3, 4, generator=torch.Generator().manual_seed(depth))
    base, slope = linear_fit(rows)
    design = np.stack([np.ones(depth), np.arange(depth) / depth], 1)
    best = np.linalg.lstsq(design, rows.flatten(1).double().numpy(), rcond=None)[0]
    assert torch.allclose(base.flatten().double(), torch.from_numpy(best[0]), atol=1e-5)
    assert torch.allclose(slope.flatten().double(), torch.from_numpy(best[1]), atol=1e-5)
