"""WAVE: copied scalers are SWEET's prefix slice, trained ones are still sums of the source's templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.initialise.apply import Weights, initialise
from sweet.initialise.wave import TiledTarget, target_scalers
from sweet.models.vit import build_vit
from sweet.storage.folders import StoredSource
from sweet.template.constraints import Kronecker
from sweet.template.sizes import Size
from sweet.template.slices import PROJ, QKV, WRITERS
from sweet.template.target import target_weights

TILE = 12  # three heads of four channels

Wide = Callable[..., StoredSource]

both_families = pytest.mark.parametrize("family", ["eva", "vit"])


@pytest.fixture
def make(wide: Wide, images: ImageSource) -> Callable[..., Weights]:
    def get(family: str, size: str, steps: int, batch: int = 8, **given: Any) -> Weights:
        source = wide(family, "kronecker")
        return initialise(
            "wave", source, Size.parse(size, 4), data=images, budget=16, steps=steps, batch=batch, device="cpu", **given
        )

    return get


def kron_sum(scalers: Tensor, templates: Tensor) -> Tensor:
    return sum(torch.kron(scalers[..., t].contiguous(), template) for t, template in enumerate(templates))


@both_families
@pytest.mark.parametrize("size", ["L12H12", "L6H6", "L3H3", "L16H9"])
@pytest.mark.parametrize("layers", ["first", "even"])
def test_untrained_it_is_the_prefix_slice(
    make: Callable[..., Weights], wide: Wide, family: str, size: str, layers: str
) -> None:
    copied, shape = make(family, size, 0, layers=layers), Size.parse(size, 4)
    source = wide(family, "kronecker").source
    expected = target_weights(source, shape.depth, shape.width, order="prefix", layers=layers)
    assert copied.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(copied[name], value, rtol=1e-5, atol=1e-6, msg=name)


@both_families
def test_a_trained_target_is_made_of_the_sources_templates(
    make: Callable[..., Weights], wide: Wide, family: str
) -> None:
    """Every tile of q, k, v and o lies in their span, by torch.kron; all else but the embedding stays."""
    core = wide(family, "kronecker").source.core
    before, after = make(family, "L2H6", 0), make(family, "L2H6", 3, lr=1e-2)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {f"blocks.{i}.{name}" for i in range(2) for name in core.templates}
    assert moved == matrices | {"decoder.embed.weight", "decoder.embed.bias"}
    for name in (QKV, PROJ):
        for weight in after[f"blocks.1.{name}"].split(2 * TILE):
            tiles = weight.unflatten(0, (2, TILE)).unflatten(2, (2, TILE)).transpose(1, 2)  # row column w w
            templates = core.templates[name]
            scalers = torch.linalg.lstsq(templates.flatten(1).t(), tiles.reshape(4, -1).t()).solution
            scalers = scalers.t().reshape(2, 2, -1)
            torch.testing.assert_close(kron_sum(scalers, templates), weight, rtol=1e-3, atol=1e-4)


def test_training_lowers_the_loss(wide: Wide) -> None:
    source = wide("eva", "kronecker")
    config = source.config.resized(3, 6)
    pixels = torch.stack([torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(8)])
    noise = torch.rand(8, 16, generator=torch.Generator().manual_seed(9))
    core = replace(source.source.core, scalers=target_scalers(source.source.core, [0, 1, 2], 2, 0))
    model = TiledTarget(core, target_weights(source.source, 3, 24, order="prefix"), config, source.mae)
    learned = [p for p in model.parameters() if p.requires_grad]
    assert len(learned) == 6
    optimiser = torch.optim.AdamW(learned, lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(20):
        loss = model(pixels, noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_further_tiles_and_layers(wide: Wide) -> None:
    core = wide("eva", "kronecker").source.core
    assert isinstance(core, Kronecker)
    wider = target_scalers(core, list(range(12)), 6, seed=1)
    for name, rows in wider.items():
        old = core.scalers[name].unflatten(1, (-1, 4))
        new = rows.unflatten(1, (-1, 6))
        assert torch.equal(new[:, :, :4, :4], old)
        fresh = torch.cat([new[:, :, 4:].flatten(), new[:, :, :4, 4:].flatten()])
        assert fresh.std().item() == pytest.approx(rows.shape[3] ** -0.5, rel=0.1)
    deeper = target_scalers(core, [0, 0, 1, 1, 1], 2, seed=1)
    for name, rows in deeper.items():
        share = torch.tensor([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3]) if name in WRITERS else torch.ones(5)
        old = core.scalers[name].unflatten(1, (-1, 4))[[0, 0, 1, 1, 1]][:, :, :2, :2].flatten(1, 2)
        torch.testing.assert_close(rows, old * share.view(-1, 1, 1, 1))


@both_families
def test_it_grows(make: Callable[..., Weights], wide: Wide, family: str) -> None:
    grown = make(family, "L14H15", 1)
    assert build_vit(wide(family).config.resized(14, 15), grown)
    assert all(value.isfinite().all() for value in grown.values())


def test_what_it_cannot_do_is_said(make: Callable[..., Weights], wide: Wide, images: ImageSource) -> None:
    with pytest.raises(UserError, match="--method wave: L5H7 has 28 channels, not whole tiles of 12"):
        make("eva", "L5H7", 0)
    with pytest.raises(UserError, match=r"steps=-1 batch=8 lr=0\.001: should be from 0 to 1e9"):
        make("eva", "L3H3", -1)
    source = wide("eva", "kronecker")
    blind = replace(source, source=replace(source.source, decoder={}))
    with pytest.raises(UserError, match="this one has no decoder or head"):
        initialise("wave", blind, Size(3, 3, 4), data=images)
    with pytest.raises(UserError, match=r"constraint is none; pretrain one with template\.constraint=kronecker"):
        initialise("wave", wide("eva"), Size(3, 3, 4), data=images)
