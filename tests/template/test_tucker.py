"""The Tucker product: numbers, scale, orders of contraction, ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sweet.costs.flops import template_parameters
from sweet.template.sizes import default_ranks, matched_ranks
from sweet.template.slices import MATRICES, SLICES, pack, unpack
from sweet.template.tucker import Full, Tucker, init_tucker, pick


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slices_of(tucker: Tucker) -> Tensor:
    """Eq. 5 in one line: (L, 12, D, D)."""
    w = torch.einsum("abc,ma,ib,jc->mij", tucker.core, tucker.x, tucker.u, tucker.v)
    return w.unflatten(0, (-1, SLICES))


# r1 decides which product comes first: X where every slice has a core matrix, V where many slices share few
@pytest.mark.parametrize("ranks", [(2, 12, 10), (48, 6, 6), (24, 16, 16)], ids=["V first", "X first", "square"])
@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize(("layers", "inner"), [([0, 1], 16), ([1], 16), ([1, 1, 0], 9)])
def test_stacked_is_the_tucker_product(ranks: tuple, mlp: str, layers: list[int], inner: int) -> None:
    tucker = init_tucker(2, 16, ranks, std=1.0, generator=generator())
    stacked = tucker.at_layers(layers).stacked(inner, mlp)
    expected = unpack(slices_of(tucker)[layers][..., :inner], mlp)
    for name in MATRICES:
        if name in ("attn.proj.weight", "mlp.fc2.weight"):
            rebuilt = tucker.u @ stacked[name]
        else:
            rebuilt = stacked[name] @ tucker.u.t()
        torch.testing.assert_close(rebuilt, expected[name], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
def test_full_answers_as_a_tucker_with_identity_scalers(mlp: str) -> None:
    core = torch.randn(24, 10, 10, generator=generator())
    tucker = Tucker(core, torch.eye(24), torch.eye(10), torch.eye(10))
    full = Full(unpack(core.unflatten(0, (2, SLICES)), mlp))
    assert (full.depth, full.width) == (tucker.depth, tucker.width) == (2, 10)
    for layers, inner in (([0, 1], 10), ([1], 7)):
        expected = tucker.at_layers(layers).stacked(inner, mlp)
        for name, value in full.at_layers(layers).stacked(inner, mlp).items():
            torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("ranks", [(24, 64, 64), (24, 37, 37), (60, 50, 64)])
def test_slices_have_the_wanted_deviation_at_every_width(ranks: tuple[int, int, int]) -> None:
    slices = slices_of(init_tucker(4, 64, ranks, std=0.02, generator=generator()))
    assert slices.std() == pytest.approx(0.02, rel=0.02)
    for residual, inner in ((32, 32), (16, 64), (64, 16)):
        assert slices[:, :, :residual, :inner].std() == pytest.approx(0.02, rel=0.06), (residual, inner)


def test_the_default_deviation_is_xaviers() -> None:
    slices = slices_of(init_tucker(2, 64, (24, 64, 64), generator=generator()))
    assert slices.std() == pytest.approx((2 / (64 + 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("ranks", [(24, 16, 16), (12, 9, 14)])
def test_the_core_alone_carries_the_frobenius_norm(ranks: tuple[int, int, int]) -> None:
    """So weight decay on the core is weight decay on the slices."""
    tucker = init_tucker(2, 16, ranks, generator=generator())
    constant = (24 / ranks[0]) * (16 / ranks[1]) * (16 / ranks[2])
    ratio = slices_of(tucker).square().sum() / tucker.core.square().sum()
    assert ratio == pytest.approx(constant, rel=1e-5)


def test_more_core_matrices_than_slices() -> None:
    x = init_tucker(1, 16, (30, 16, 16), generator=generator()).x
    torch.testing.assert_close(x @ x.t(), torch.eye(12), rtol=0, atol=1e-5)


def test_a_seed_gives_the_same_template() -> None:
    first, second, other = (init_tucker(1, 8, (6, 8, 5), generator=generator(seed)) for seed in (3, 3, 4))
    for name, value in first.tensors().items():
        assert torch.equal(value, getattr(second, name))
        assert not torch.equal(value, getattr(other, name))


def test_contracted_and_expanded_keep_the_slices() -> None:
    square = init_tucker(2, 12, (5, 12, 12), generator=generator())
    contracted = square.contracted()
    assert contracted.u is None and contracted.v is None
    assert (contracted.depth, contracted.width) == (2, 12)
    torch.testing.assert_close(slices_of(contracted.expanded()), slices_of(square), rtol=1e-4, atol=1e-5)
    double = replace(contracted, core=contracted.core.double(), x=contracted.x.double())
    assert {tensor.dtype for tensor in double.expanded().tensors().values()} == {torch.float64}
    stacked = contracted.at_layers([1]).stacked(7, "swiglu")
    for name, value in unpack(slices_of(square)[1:, ..., :7], "swiglu").items():
        torch.testing.assert_close(stacked[name], value, rtol=1e-4, atol=1e-5)
    low_rank = init_tucker(2, 12, (5, 12, 9), generator=generator())
    assert low_rank.contracted() is low_rank  # it would grow


@pytest.mark.parametrize(("ranks_of", "base"), [(default_ranks, (48, 768, 768)), (matched_ranks, (144, 448, 448))])
def test_default_ranks_are_a_third_of_the_weights(
    ranks_of: Callable[[int, int], tuple[int, int, int]], base: tuple[int, int, int]
) -> None:
    assert ranks_of(12, 768) == base
    counts = template_parameters(12, 768, base)
    assert counts["core"] / (12 * 12 * 768**2) == pytest.approx(1 / 3, abs=0.01)
    for depth, width in ((12, 192), (8, 128), (2, 16), (1, 4)):
        r1, r2, r3 = ranks_of(depth, width)
        assert r1 == base[0] // 12 * depth and r2 == r3 <= width


def test_pick_copies_only_when_it_must() -> None:
    rows = torch.arange(6.0).view(3, 2)
    assert pick(rows, [0, 1, 2]) is rows
    assert pick(rows, [2, 0, 0]).tolist() == [[4, 5], [0, 1], [0, 1]]


def test_pack_of_full_weights_keeps_energy() -> None:
    slices = torch.randn(1, SLICES, 9, 9, generator=generator())
    assert torch.equal(pack(unpack(slices, "swiglu"), "swiglu"), slices)
