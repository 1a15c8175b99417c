"""What counts as a difference: paired over replicates, one pooled variance, Holm's correction; scipy as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from sweet.results.paired import Difference, Mean, Noise, holm, paired, quantile, signed, student
from sweet.tasks.registry import TASKS

RANDOM = np.random.default_rng(0)


def test_mean_and_spread() -> None:
    assert Mean.of([1.0, 2.0, 6.0]) == Mean(3.0, pytest.approx(math.sqrt(7)), 3)
    one = Mean.of([4.0])
    assert (one.value, one.seeds) == (4, 1) and math.isnan(one.spread)
    assert [Mean.of(values).text(TASKS["classify"]) for values in ([30.126], [10.0, 12.0])] == [
        "30.13 (1)",
        "11.00 ± 1.41 (2)",
    ]


@pytest.mark.parametrize(("task", "value"), [("classify", 2.0), ("generate", -2.0)])
def test_differences_are_paired_by_seed_and_above_zero_where_the_first_is_better(task: str, value: float) -> None:
    assert paired({0: 5.0, 1: 9.0, 2: 1.0}, {2: 0.0, 1: 6.0, 7: 99.0}, TASKS[task]) == (value, 2)
    assert paired({0: 5.0}, {1: 6.0}, TASKS[task]) is None


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 31, 120])
def test_students_distribution(freedom: int) -> None:
    for value in (0.0, 0.1, 1.0, 2.5, 7.0):
        assert student(value, freedom) == pytest.approx(1 - 2 * t.sf(value, freedom), abs=1e-12)
    assert quantile(freedom) == pytest.approx(t.ppf(0.975, freedom))
    assert quantile(0) == math.inf


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_two_arms_in_one_column_are_a_paired_t_test(seeds: int) -> None:
    ours, theirs = ({seed: float(RANDOM.normal(i)) for seed in range(seeds)} for i in range(2))
    noise = Noise.of([[ours, theirs]])
    found = paired(ours, theirs, TASKS["classify"])
    assert found and noise.freedom == seeds - 1
    one = Difference(found[0], noise.error(seeds), seeds, noise.freedom)
    expected = ttest_rel([*ours.values()], [*theirs.values()])
    assert one.alone == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (one.value - one.margin, one.value + one.margin) == pytest.approx((low, high))


def test_the_noise_is_pooled_over_arms_and_columns() -> None:
    """What is left of a value beside the means of its arm and of its replicate, as a two-way analysis of variance."""
    columns = [RANDOM.normal(size=(arms, seeds)) for arms, seeds in ((5, 3), (4, 2), (3, 1))]
    squares = [np.square(y - y.mean(1, keepdims=True) - y.mean(0, keepdims=True) + y.mean()).sum() for y in columns]
    noise = Noise.of([[dict(enumerate(row)) for row in y] for y in columns])
    assert noise.freedom == 4 * 2 + 3 * 1 + 0
    assert noise.variance == pytest.approx(sum(squares) / 11)
    assert noise.error(3) == pytest.approx(math.sqrt(2 * sum(squares) / 11 / 3))
    assert math.isnan(Noise.of([[{0: 1.0}, {0: 2.0}]]).variance)


def test_an_arm_that_lacks_a_replicate_takes_its_part() -> None:
    """Three arms, the last without replicate 2: eight values, five means, by the normal equations."""
    arms = [{0: 1.0, 1: 2.0, 2: 4.0}, {0: 2.0, 1: 2.5, 2: 6.0}, {0: 0.0, 1: 3.0}]
    rows = [(i, seed, value) for i, arm in enumerate(arms) for seed, value in arm.items()]
    x = np.array([[1.0, i == 1, i == 2, seed == 1, seed == 2] for i, seed, _ in rows], dtype=float)
    y = np.array([value for *_, value in rows])
    rest = y - x @ np.linalg.solve(x.T @ x, x.T @ y)
    noise = Noise.of([arms])
    assert (noise.freedom, noise.variance) == (3, pytest.approx(rest @ rest / 3))


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    corrected = holm([0.04, math.nan])
    assert corrected[0] == 0.04 and math.isnan(corrected[1])  # what is not judged does not count
    assert holm([]) == []


@pytest.mark.parametrize(
    ("value", "p", "error", "said"),
    [
        (1.0, 0.04, 0.4, "gain"),
        (-1.0, 0.04, 0.4, "worse"),
        (1.0, 0.06, 0.4, "no gain"),
        (0.0, 0.0, 0.0, "no gain"),
        (50.0, math.nan, math.nan, "one seed"),  # which shows nothing
    ],
)
def test_verdict(value: float, p: float, error: float, said: str) -> None:
    assert Difference(value, error, 2, 4, p).verdict == said


def test_a_difference_in_words() -> None:
    assert Difference(50.0, math.nan, 1).text() == "+50.00"
    assert Difference(-1.0, 0.25, 2, 2).text() == "\N{MINUS SIGN}1.00 ± 1.08"  # 4.303 standard errors
    assert [signed(value, 1) for value in (2.04, -2.04)] == ["+2.0", "\N{MINUS SIGN}2.0"]
    assert [Difference(value, 0.0, 2, 2).alone for value in (0.0, 1.0)] == [1.0, 0.0]
