"""The straight path between noise and images: z = t x + (1 - t) e, from t = 0 (noise) to t = 1 (JiT, section 3).

The network says what the clean image x is; what is compared and integrated is the velocity (x - z) / (1 - t).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CLAMP = 0.05  # least 1 - t in a denominator of the loss
TIME_MEAN, TIME_STD = -0.8, 0.8  # t is the sigmoid of a normal number: mostly nearer to the noise

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]  # noisy images, times (B,), classes (B,) -> clean images


def draw_times(count: int, generator: torch.Generator) -> Tensor:
    """(B,) on the generator's device."""
    drawn = torch.randn(count, generator=generator, device=generator.device)
    return torch.sigmoid(TIME_MEAN + TIME_STD * drawn)


def noisy(images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """The point of the path at ``times`` (B,)."""
    times = times.view(-1, 1, 1, 1)
    return times * images + (1 - times) * noise


def velocity(images: Tensor, z: Tensor, times: Tensor) -> Tensor:
    """From z towards ``images``; exact below t = 0.95."""
    return (images - z) / (1 - times).clamp(min=CLAMP).view(-1, 1, 1, 1)


@torch.no_grad()
def sample(
    predict: Predict,
    noise: Tensor,
    labels: Tensor,
    *,
    steps: int,
    none: int,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Images of the classes ``labels`` (B,) from ``noise`` (B, C, S, S): Heun's method, the last step Euler's.

    Where t lies in ``interval``, the velocity is led away from that of the class ``none`` by ``guidance`` (1: not at
    all), after Ho & Salimans 2022 and Kynkäänniemi et al. 2024. Costs 2 ``steps`` - 1 evaluations, twice as many where
    it is led. Nothing is clamped here: the last step arrives at the network's clean image, which a clamp would miss.
    """

    def slope(z: Tensor, t: float) -> Tensor:
        times = z.new_full((len(z),), t)
        own = (predict(z, times, labels).float() - z) / (1 - t)
        if guidance == 1 or not interval[0] <= t <= interval[1]:
            return own
        free = (predict(z, times, torch.full_like(labels, none)).float() - z) / (1 - t)
        return free + guidance * (own - free)

    z = noise
    for step in range(steps):
        t, after = step / steps, (step + 1) / steps
        first = slope(z, t)
        if step == steps - 1:
            return z + (after - t) * first
        second = slope(z + (after - t) * first, after)
        z = z + (after - t) * (first + second) / 2
    return z
