"""The path between noise and images, where the answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sweet.tasks.generation.diffusion import CLAMP, draw_times, noisy, sample, velocity

MEAN, STD = 1.5, 0.5  # of the pixels that are to be made


def of_a_normal_distribution(z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
    """E[x | z] where pixels are N(MEAN, STD^2) and noise is N(0, 1): what a perfect network would say."""
    t = times.view(-1, 1, 1, 1)
    gain = t * STD**2 / (t**2 * STD**2 + (1 - t) ** 2)
    return MEAN + gain * (z - t * MEAN)


def test_the_velocity_of_a_path_is_its_slope() -> None:
    images, noise, times = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2), torch.tensor([0.0, 0.3, 0.6, 0.9])
    z = noisy(images, noise, times)
    torch.testing.assert_close(z[0], noise[0])
    torch.testing.assert_close(velocity(images, z, times), images - noise)
    late = torch.full((4,), 0.99)
    z = noisy(images, noise, late)
    torch.testing.assert_close(velocity(images, z, late), (images - noise) * 0.01 / CLAMP, rtol=1e-3, atol=1e-4)


def test_times_are_mostly_early() -> None:
    times = draw_times(20_000, torch.Generator().manual_seed(0))
    logits = torch.logit(times)
    assert float(logits.mean()) == pytest.approx(-0.8, abs=0.02)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.02)


def test_a_perfect_network_gives_the_distribution() -> None:
    noise = torch.randn(20_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(len(noise), dtype=torch.int64)
    made = sample(of_a_normal_distribution, noise, labels, steps=40, none=1)
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(made.std()) == pytest.approx(STD, abs=0.02)


def test_heun_is_of_second_order() -> None:
    """The error of 2 n steps is about a quarter of that of n."""
    noise = torch.randn(64, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.zeros(64, dtype=torch.int64)

    def slow(z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return z + (1 - times).view(-1, 1, 1, 1) * -z  # dz/dt = -z

    exact = noise * torch.exp(torch.tensor(-1.0).double())
    errors = [(sample(slow, noise, labels, steps=n, none=1) - exact).abs().max().item() for n in (8, 16, 32)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_guidance_leads_away_from_no_class_inside_its_interval() -> None:
    seen: list[tuple[float, int]] = []

    def predict(z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        seen.append((round(float(times[0]), 3), int(labels[0])))
        return labels.view(-1, 1, 1, 1).expand_as(z).float()

    noise, labels = torch.zeros(2, 1, 1, 1), torch.tensor([4, 4])
    plain = sample(predict, noise, labels, steps=4, none=3)
    assert {label for _, label in seen} == {4} and len(seen) == 7
    torch.testing.assert_close(plain, torch.full_like(plain, 4.0))
    seen.clear()
    led = sample(predict, noise, labels, steps=4, none=3, guidance=3.0)
    torch.testing.assert_close(led, torch.full_like(led, 6.0))  # 3 + 3 * (4 - 3)
    seen.clear()
    sample(predict, noise, labels, steps=4, none=3, guidance=3.0, interval=(0.5, 0.6))
    assert {t for t, label in seen if label == 3} == {0.5}
