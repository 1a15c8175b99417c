"""Which sub-networks a step trains: modes, distribution, determinism."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from sweet.template.networks import MODES, draw_depth, draw_widths


def draws(mode: str, count: int, *, heads: int = 6, min_heads: int = 3, full: float = 0.5, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [
        draw_widths(mode, heads, min_heads=min_heads, full_probability=full, generator=generator) for _ in range(count)
    ]


def test_none_is_the_full_network() -> None:
    assert draws("none", 2) == [[(6, 6)], [(6, 6)]]


def test_shared_draws_once_for_both_sides() -> None:
    assert all(len(step) == 1 and step[0][0] == step[0][1] for step in draws("shared", 50))


def test_independent_draws_the_sides_apart() -> None:
    steps = draws("independent", 2000)
    residual, inner = Counter(step[0][0] for step in steps), Counter(step[0][1] for step in steps)
    for side in (residual, inner):
        assert set(side) == {3, 4, 5, 6}
        # full width: half of the draws, and one in four of the others
        assert side[6] / 2000 == pytest.approx(0.5 + 0.5 / 4, abs=0.05)
        for heads in (3, 4, 5):
            assert side[heads] / 2000 == pytest.approx(0.5 / 4, abs=0.03)
    both = Counter(step[0] for step in steps)
    assert both[6, 6] / 2000 == pytest.approx(0.625**2, abs=0.05)


def test_sandwich_takes_the_full_the_smallest_and_one_between() -> None:
    steps = draws("sandwich", 100)
    assert all(step[:2] == [(6, 6), (3, 3)] and len(step) == 3 for step in steps)
    assert {step[2] for step in steps} == {(h, h) for h in (3, 4, 5, 6)}


@pytest.mark.parametrize(("probability", "expected"), [(1.0, {6}), (0.0, {3, 4, 5, 6})])
def test_the_share_of_full_width(probability: float, expected: set[int]) -> None:
    assert {step[0][0] for step in draws("shared", 200, full=probability)} == expected


@pytest.mark.parametrize("mode", MODES)
def test_a_network_narrower_than_the_smallest_width(mode: str) -> None:
    assert {pair for step in draws(mode, 20, heads=2) for pair in step} == {(2, 2)}


@pytest.mark.parametrize("mode", ["independent", "shared", "sandwich"])
def test_a_generator_decides(mode: str) -> None:
    assert draws(mode, 20, seed=5) == draws(mode, 20, seed=5) != draws(mode, 20, seed=6)


def test_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match=r"unknown width mode 'wide'.*independent"):
        draws("wide", 1)


def test_depths_are_full_half_of_the_time_and_even_otherwise() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(draw_depth(6, min_depth=3, full_probability=0.5, generator=generator) for _ in range(2000))
    assert set(drawn) == {3, 4, 5, 6}
    assert drawn[6] / 2000 == pytest.approx(0.5 + 0.5 / 4, abs=0.05)
    assert drawn[3] / 2000 == pytest.approx(0.5 / 4, abs=0.03)
