from __future__ import annotations

import numpy as np
import pytest

from sweet.data import balanced_subset, learned_and_held, shuffled
from sweet.data.subset import up_to
from sweet.errors import UserError

LABELS = np.random.default_rng(0).integers(0, 4, 400).tolist()


def test_balanced() -> None:
    chosen = balanced_subset(LABELS, 40, seed=0)
    assert chosen == sorted(set(chosen))
    assert np.bincount([LABELS[index] for index in chosen]).tolist() == [10] * 4
    assert chosen == balanced_subset(LABELS, 40, seed=0) != balanced_subset(LABELS, 40, seed=1)


def test_small_lies_inside_large() -> None:
    assert set(balanced_subset(LABELS, 40, seed=0)) < set(balanced_subset(LABELS, 80, seed=0))


def test_too_many_or_uneven() -> None:
    with pytest.raises(UserError, match=r"data\.labels=42: not a multiple of the 4 classes"):
        balanced_subset(LABELS, 42, seed=0)
    with pytest.raises(UserError, match=r"data\.labels=1200: class \d has \d+ images, 300 are needed"):
        balanced_subset(LABELS, 1200, seed=0)


def test_shuffled() -> None:
    assert sorted(shuffled(20, 0)) == list(range(20))
    assert shuffled(20, 0) == shuffled(20, 0) != shuffled(20, 1)


def test_at_most_so_many_of_each_class() -> None:
    labels = [0, 1, 0, 1, 1, 0, 2]
    chosen = up_to(labels, 2, seed=3)
    assert [labels[index] for index in chosen].count(2) == 1 and len(chosen) == 5
    assert chosen == sorted(chosen) and chosen != up_to(labels, 2, seed=4)
    assert set(up_to(labels, 1, seed=3)) == set(balanced_subset(labels, 3, seed=3)) < set(chosen)


def test_what_is_held_out_has_no_label_that_is_learned_from() -> None:
    """The labelled images are those that are drawn without it; the others are as many of each class."""
    learned, held = learned_and_held(LABELS, 40, 20, seed=0)
    assert learned == balanced_subset(LABELS, 40, seed=0)
    assert not set(learned) & set(held) and sorted(learned + held) == balanced_subset(LABELS, 60, seed=0)
    rest, held = learned_and_held(LABELS, None, 20, seed=0)
    assert held == balanced_subset(LABELS, 20, seed=0) and sorted(rest + held) == list(range(len(LABELS)))
    for count, why in ((21, "not a multiple of the"), (10_000, r"class 0 has \d+ images, too few")):
        with pytest.raises(UserError, match=rf"data\.held_out={count}: {why}"):
            learned_and_held(LABELS, 40, count, seed=0)
