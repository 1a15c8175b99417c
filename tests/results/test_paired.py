"""What counts as a difference: paired over seeds, two standard errors, a t test beside it."""

from __future__ import annotations

import math

import pytest
from scipy.stats import t, ttest_1samp

from sweet.results.paired import T95, Difference, Mean, difference, signed
from sweet.tasks.registry import TASKS


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
    one = difference({0: 5.0, 1: 9.0, 2: 1.0}, {2: 0.0, 1: 6.0, 7: 99.0}, TASKS[task])
    assert one == Difference(value, pytest.approx(math.sqrt(2) / math.sqrt(2)), 2)
    assert difference({0: 5.0}, {1: 6.0}, TASKS[task]) is None


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (1.0, 0.4, "gain"),
        (-1.0, 0.4, "worse"),
        (1.0, 0.6, "no gain"),
        (-1.0, 0.6, "no gain"),
        (0.0, 0.0, "no gain"),
        (0.1, 0.0, "gain"),
        (50.0, math.nan, "one seed"),  # which shows nothing
    ],
)
def test_verdict(value: float, error: float, said: str) -> None:
    assert Difference(value, error, 2).verdict == said


def test_quantiles_of_t() -> None:
    assert pytest.approx([t.ppf(0.975, seeds - 1) for seeds in range(2, 11)], abs=5e-4) == list(T95)


@pytest.mark.parametrize("values", [(4.7, 5.1), (4.0, 5.4), (1.0, 1.2, 0.9), (0.1, -0.2, 0.3, 0.0)])
def test_sure_is_a_paired_t_test(values: tuple[float, ...]) -> None:
    mean = sum(values) / len(values)
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    assert Difference(mean, error, len(values)).sure == (ttest_1samp(values, 0).pvalue < 0.05)


def test_one_seed_shows_nothing() -> None:
    one = Difference(50.0, math.nan, 1)
    assert (one.verdict, one.sure, one.text()) == ("one seed", False, "+50.00")
    assert Difference(-1.0, 0.25, 2).text() == "\N{MINUS SIGN}1.00 ± 0.25"
    assert [signed(value, 1) for value in (2.04, -2.04)] == ["+2.0", "\N{MINUS SIGN}2.0"]
