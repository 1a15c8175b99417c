"""HOSVD and HOOI against tensorly; full ranks lose nothing, lower ranks lose what the spectra say."""

from __future__ import annotations

import itertools

import pytest
import tensorly
import torch
from tensorly.decomposition import partial_tucker, tucker
from torch import Tensor

from sweet.template.hosvd import Hosvd, hosvd
from sweet.template.tucker import Tucker

DEPTH, WIDTH = 2, 15
SHAPE = (12 * DEPTH, WIDTH, WIDTH)


def random_slices(seed: int = 0) -> Tensor:
    """Slices with falling spectra in every mode, and one component ten times as large as the others."""
    generator = torch.Generator().manual_seed(seed)
    slices = torch.randn(SHAPE, generator=generator)
    for mode, size in enumerate(SHAPE):
        q = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q * torch.logspace(0, -1.5, size)
        slices = torch.tensordot(q, slices, dims=([1], [mode])).movedim(0, mode)
    slices = slices / slices.square().mean().sqrt()
    slices.unflatten(0, (DEPTH, 12))[:, 5] *= 10
    return slices


def rebuilt(tucker: Tucker) -> Tensor:
    assert tucker.u is not None and tucker.v is not None
    return torch.einsum("abc,ma,ib,jc->mij", tucker.core, tucker.x, tucker.u, tucker.v)


def error(tucker: Tucker, slices: Tensor) -> float:
    return float((rebuilt(tucker) - slices).norm() / slices.norm())


def balanced_error(parts: Hosvd, tucker: Tucker) -> float:
    """In the norm that the decomposition minimises."""
    difference = rebuilt(tucker) - parts.slices * parts.scale[:, None, None]
    return float((difference / parts.scale[:, None, None]).norm() / parts.slices.norm())


@pytest.mark.parametrize("metric", [False, True])
def test_full_ranks_lose_nothing(metric: bool) -> None:
    slices = random_slices()
    root = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))
    assert error(hosvd(slices, metric=root @ root.t() if metric else None).tucker(SHAPE), slices) < 2e-6


@pytest.mark.parametrize("ranks", [(24, 10, 9), (8, 15, 15), (10, 8, 15), (9, 7, 6), (4, 3, 3)])
def test_no_worse_than_tensorly(ranks: tuple[int, int, int]) -> None:
    slices = random_slices()
    parts = hosvd(slices, balance=False)
    with tensorly.backend_context("pytorch"):
        theirs = [tensorly.tucker_to_tensor(tucker(slices, rank=list(ranks), init="svd", tol=1e-5))]
        modes = [mode for mode in range(3) if ranks[mode] < SHAPE[mode]]
        (core, factors), _ = partial_tucker(slices, rank=[ranks[mode] for mode in modes], modes=modes, init="svd")
        theirs.append(tensorly.tenalg.multi_mode_dot(core, factors, modes=modes))
    best = min(float((other - slices).norm() / slices.norm()) for other in theirs)
    assert error(parts.tucker(ranks), slices) <= best + 1e-3  # three sweeps against up to a hundred


def test_scalers_follow_the_convention() -> None:
    parts = hosvd(random_slices(), metric=torch.diag(torch.arange(1.0, WIDTH + 1)))
    for ranks in [(10, 7, 6), SHAPE]:
        result = parts.tucker(ranks)
        assert result.core.shape == ranks
        assert (result.depth, result.width) == (DEPTH, WIDTH)
        for factor, rank in zip((result.x, result.u, result.v), ranks, strict=True):
            assert factor is not None
            gram = factor.t() @ factor * (rank / len(factor))
            torch.testing.assert_close(gram, torch.eye(rank), rtol=0, atol=1e-5)


def test_the_error_falls_with_every_rank() -> None:
    parts = hosvd(random_slices())
    for mode in range(3):
        errors = []
        for rank in range(1, SHAPE[mode] + 1, 2):
            ranks = [18, 11, 11]
            ranks[mode] = rank
            errors.append(balanced_error(parts, parts.tucker(ranks)))
        assert all(after <= before + 1e-6 for before, after in itertools.pairwise(errors))
        assert errors[-1] < 0.8 * errors[0]


def test_sweeps_improve_on_the_plain_hosvd() -> None:
    parts = hosvd(random_slices())
    plain, swept = (balanced_error(parts, parts.tucker((6, 4, 4), sweeps=sweeps)) for sweeps in (0, 3))
    assert swept < plain


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_ranks_by_energy_keep_at_least_that_share(share: float) -> None:
    parts = hosvd(random_slices())
    ranks = parts.ranks(share)
    assert 1 - balanced_error(parts, parts.tucker(ranks)) ** 2 >= share - 1e-5
    if share < 0.95:
        assert all(rank < size for rank, size in zip(ranks, SHAPE, strict=True))
    for mode, spectrum in enumerate(parts.spectra):  # and one rank less would lose more than a mode's part
        assert spectrum.sum().item() == pytest.approx(1.0, abs=1e-5)
        assert bool((spectrum[:-1] >= spectrum[1:] - 1e-6).all())
        assert spectrum[ranks[mode] - 1 :].sum() > (1 - share) / 3 - 1e-6


def test_balance_keeps_a_large_component_from_taking_all_ranks() -> None:
    slices = random_slices()
    small = [i for i in range(12 * DEPTH) if i % 12 != 5]
    plain, balanced = (rebuilt(hosvd(slices, balance=b).tucker((24, 6, 6))) for b in (False, True))
    assert (balanced - slices)[small].norm() < 0.95 * (plain - slices)[small].norm()


def test_the_metric_spends_the_ranks_where_the_activations_are() -> None:
    slices = random_slices()
    generator = torch.Generator().manual_seed(3)
    root = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q * torch.logspace(0, -2, WIDTH)
    inputs = torch.randn(500, WIDTH, generator=generator) @ root.t()
    outputs = []
    for metric in (None, inputs.t() @ inputs / 500):
        difference = rebuilt(hosvd(slices, metric=metric, balance=False).tucker((24, 6, 15))) - slices
        outputs.append((inputs @ difference).norm())
    assert outputs[1] < 0.7 * outputs[0]


@pytest.mark.parametrize("ranks", [(0, 1, 1), (24, 16, 15), (25, 15, 15)])
def test_impossible_ranks(ranks: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"rank r\d = \d+ is not in 1\.\."):
        hosvd(random_slices()).tucker(ranks)
