"""The principal order as linear algebra; what it does to networks is tested in test_target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sweet.template.order import Order, embedding_basis, principal_order

# energies of one layer's two heads of six channels, and of its three hidden units
HEADS, UNITS = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0, 3.0]])


def moments(norms: int, width: int, *, centred: bool) -> Tensor:
    """Second moments of random streams with a falling spectrum, each vector scaled to mean square one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(norms, 400, width, generator=generator) * torch.logspace(0, -1, width)
    x = x @ torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    if centred:
        x = x - x.mean(-1, keepdim=True)
    u = x / x.square().mean(-1, keepdim=True).sqrt()
    return torch.einsum("ntd,ntc->ndc", u, u) / 400


@pytest.fixture(params=[False, True], ids=["rms", "layer"])
def centred(request: pytest.FixtureRequest) -> bool:
    return request.param


def test_rotation_is_orthogonal_and_its_signs_are_fixed(centred: bool) -> None:
    given = moments(3, 12, centred=centred)
    order = principal_order(given, HEADS, UNITS, centred=centred)
    torch.testing.assert_close(order.rotation.t() @ order.rotation, torch.eye(12), rtol=0, atol=1e-6)
    largest = order.rotation.gather(0, order.rotation.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())
    assert torch.equal(order.rotation, principal_order(given.clone(), HEADS, UNITS, centred=centred).rotation)


def test_energy_is_that_of_the_rotated_stream(centred: bool) -> None:
    given = moments(3, 12, centred=centred)
    order = principal_order(given, HEADS, UNITS, centred=centred)
    rotated = order.rotation.t() @ given @ order.rotation
    torch.testing.assert_close(order.energy, rotated.diagonal(dim1=1, dim2=2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(order.energy.sum(1), torch.full((3,), 12.0))
    total = rotated.sum(0)
    torch.testing.assert_close(total, total.diagonal().diag(), rtol=0, atol=1e-4)  # no correlation is left
    if centred:
        torch.testing.assert_close(order.rotation[:, -1], torch.full((12,), 12**-0.5))
        assert order.energy[:, -1].max() < 1e-5


def test_kept_energy_falls_with_the_width_and_beats_every_other_choice(centred: bool) -> None:
    given = moments(3, 12, centred=centred)
    order = principal_order(given, HEADS, UNITS, centred=centred)
    assert bool((order.spectrum[:-1] >= order.spectrum[1:] - 1e-7).all())
    assert order.spectrum.sum() == pytest.approx(1.0)
    kept = torch.stack([order.kept(d) for d in range(1, 13)])
    assert bool((kept[1:] >= kept[:-1] - 1e-6).all())
    torch.testing.assert_close(kept[-1], torch.ones(3))
    prefix = given.sum(0).diagonal().cumsum(0) / 36
    assert bool((order.spectrum.cumsum(0) >= prefix - 1e-6).all())
    assert order.spectrum[:6].sum() > prefix[5] + 0.1


def test_kept_is_counted_for_each_norm_apart() -> None:
    order = Order(torch.eye(2), torch.tensor([[2.0, 0.0], [1.5, 0.5]]), HEADS, UNITS)
    assert order.kept(1).tolist() == [1.0, 0.75]
    assert order.spectrum.tolist() == [0.875, 0.125]


def test_the_highest_energy_comes_first_and_equals_stay_as_they_are() -> None:
    order = principal_order(moments(3, 12, centred=False), HEADS, UNITS, centred=False)
    assert order.heads.tolist() == [[1, 0]] and order.units.tolist() == [[0, 2, 1]]
    channels, units = order.highest_energy(6, 2)
    assert channels.tolist() == [[6, 7, 8, 9, 10, 11]] and units.tolist() == [[0, 2]]


@pytest.mark.parametrize("width", [1, 2, 3, 8, 15])
def test_embedding_basis(width: int, centred: bool) -> None:
    basis = embedding_basis(width, centred=centred)
    columns = width - centred
    assert basis.shape == (width, columns)
    torch.testing.assert_close(basis.t() @ basis, torch.eye(columns), rtol=0, atol=1e-6)
    if centred:
        torch.testing.assert_close(basis.sum(0), torch.zeros(columns), rtol=0, atol=1e-5)
    else:
        assert torch.equal(basis, torch.eye(width))
