"""Equal gains: the same function, and each norm puts out as much energy in every channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sweet.errors import UserError
from sweet.initialise.apply import initialise
from sweet.models.forward import encode, linear, patchify
from sweet.models.moments import compute_order
from sweet.models.vit import build_vit
from sweet.storage.folders import StoredSource
from sweet.template.gains import LEAST, equalise_gains
from sweet.template.sizes import Size

Make = Callable[..., StoredSource]
both_families = pytest.mark.parametrize("family", ["eva", "vit"])
PIXELS = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def ordered(make_source: Make, family: str, constraint: str = "none") -> StoredSource:
    """A source in the order of :data:`PIXELS`, some of its channels of far more energy than others."""
    source = make_source(family, constraint, depth=3, heads=4, head_dim=4)
    source.source.stem["cls_token"] *= 20
    source.source.order = compute_order(source.source, source.config, [PIXELS])
    return source


def outputs(weights: dict[str, torch.Tensor], source: StoredSource, size: Size) -> torch.Tensor:
    """The decoder's input."""
    config = source.config.resized(size.depth, size.heads)
    return linear(encode(weights, patchify(PIXELS, config.patch_size), config), weights, "decoder.embed")


@both_families
@pytest.mark.parametrize("size", ["L3H4", "L2H2", "L4H6", "L1H3"])
@pytest.mark.parametrize(
    ("method", "plain", "constraint"),
    [("sweet", "rms", "tucker"), ("principal_slice", "rms", "none"), ("weight_selection", "none", "none")],
)
def test_the_function_is_the_same(
    method: str, plain: str, constraint: str, size: str, family: str, make_source: Make
) -> None:
    target = Size.parse(size, 4)
    if method == "weight_selection" and size == "L4H6":
        pytest.skip("selects only")
    source = ordered(make_source, family, constraint)
    given: dict[str, Any] = {"layers": "even"} | ({"rule": "consecutive"} if method == "weight_selection" else {})
    before, after = (initialise(method, source, target, gains=gains, **given) for gains in (plain, "equal"))
    assert not torch.allclose(before["norm.weight"], after["norm.weight"])
    torch.testing.assert_close(outputs(after, source, target), outputs(before, source, target), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "family", "most"), [("sweet", "eva", 1.01), ("sweet", "vit", 2.5), ("weight_selection", "eva", 3.0)]
)
def test_every_norm_puts_out_as_much_in_each_channel(method: str, family: str, most: float, make_source: Make) -> None:
    """At the size of the source, on the images that the energies were measured on; exactly so in principal order with
    RMSNorm: elsewhere the channels are mixtures of principal directions, taken to be uncorrelated."""
    source, target = ordered(make_source, family), Size(3, 4, 4)
    plain = initialise(method, source, target, gains="rms" if method == "sweet" else "none")
    model = build_vit(source.config, initialise(method, source, target, gains="equal"))
    before = build_vit(source.config, plain)

    def spreads(vit: Any) -> list[float]:
        found: list[float] = []

        def look(_: Any, __: Any, out: torch.Tensor) -> None:
            energy = out.detach().flatten(0, 1).square().mean(0)
            if method == "sweet" and family == "vit":
                energy = energy[:-1]  # the vector of ones has none
            found.append((energy.max() / energy.min()).item())

        hooks = [
            m.register_forward_hook(look)
            for n, m in vit.named_modules()
            if n.endswith(("norm1", "norm2")) or n == "norm"
        ]
        with torch.no_grad():
            vit(PIXELS)
        for hook in hooks:
            hook.remove()
        return found

    assert len(spreads(model)) == 7 and max(spreads(model)) < most < max(spreads(before)) / 3


def test_by_hand() -> None:
    weights = {
        "norm.weight": torch.ones(2),
        "norm.bias": torch.tensor([1.0, 2.0]),
        "head.weight": torch.ones(3, 2),
        "blocks.0.norm1.weight": torch.ones(2),
        "blocks.0.attn.qkv.weight": torch.ones(6, 2),
    }
    result = equalise_gains(weights, torch.tensor([[1.0, 1.0], [1.0, 1.0], [8.0, 0.0]]))
    rms = torch.tensor([2.0, LEAST]).sqrt()
    torch.testing.assert_close(result["norm.weight"], 1 / rms)
    torch.testing.assert_close(result["norm.bias"], weights["norm.bias"] / rms)
    torch.testing.assert_close(result["head.weight"], rms.expand(3, 2))
    assert torch.equal(result["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.weight"])


def test_it_is_the_default_of_principal_order(make_source: Make) -> None:
    source, target = ordered(make_source, "eva", "tucker"), Size(2, 2, 4)
    best, equal = (initialise("sweet", source, target, **given) for given in ({}, {"gains": "equal"}))
    assert all(torch.equal(value, equal[name]) for name, value in best.items())
    with pytest.raises(UserError, match="gains=equal: energies are known in principal order only"):
        initialise("sweet", source, target, order="prefix", gains="equal")
    dense = make_source("eva", "none", depth=3, heads=4, head_dim=4)
    with pytest.raises(UserError, match="gains=equal: the channels' energies of this source were not computed"):
        initialise("weight_selection", dense, target, gains="equal")


def test_a_channel_without_energy_gets_no_large_gain() -> None:
    """It carries nothing; a large gain would only make its first steps too long (docs/log.md)."""
    weights = {"norm.weight": torch.ones(4), "head.weight": torch.ones(2, 4)}
    result = equalise_gains(weights, torch.tensor([[4.0, 0.1, 1e-9, 0.0]]))
    most = LEAST**-0.5
    assert result["norm.weight"][2:].tolist() == pytest.approx([most, most]) and most <= 10
    assert result["norm.weight"][0] < 1 < result["norm.weight"][1] < most
