"""Classes of unequal size: weights of mean one, an order that shows all alike and follows from (seed, epoch)."""

from __future__ import annotations

import pytest
import torch

from sweet.data import Batches, Packed
from sweet.data.balance import balanced_order, class_counts, class_weights

LABELS = torch.tensor([0] * 70 + [1] * 20 + [3] * 7 + [2] * 3)


def test_weights_are_those_of_scikit_learn() -> None:
    # compute_class_weight("balanced"): n_samples / (n_classes * bincount)
    weights = class_weights(LABELS, 4)
    torch.testing.assert_close(weights, torch.tensor([100 / 280, 100 / 80, 100 / 12, 100 / 28]))
    assert float(weights[LABELS].mean()) == pytest.approx(1)
    with_an_empty_class = class_weights(LABELS, 6)
    assert with_an_empty_class[4:].tolist() == [1, 1]
    assert torch.equal(with_an_empty_class[:4], weights)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:90], LABELS[50:], torch.tensor([5, 5, 2])])
def test_an_order_shows_every_class_alike(labels: torch.Tensor) -> None:
    order = balanced_order(labels, torch.Generator().manual_seed(3))
    assert len(order) == len(labels)
    shown = torch.bincount(labels[order])[labels.unique()]
    assert shown.max() - shown.min() <= 1
    for label in labels.unique():  # no image a second time before all others of its class had their turn
        members = torch.nonzero(labels == label)[:, 0]
        times = torch.bincount(order, minlength=len(labels))[members]
        assert times.max() - times.min() <= 1
    assert torch.equal(order, balanced_order(labels, torch.Generator().manual_seed(3)))
    assert len(labels) < 5 or not torch.equal(order, balanced_order(labels, torch.Generator().manual_seed(4)))


def batches(start: int = 0, **options: int) -> list[list[int]]:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 4, 4)
    data = Packed(images, LABELS, list("abcd"))
    made = Batches(data, batch_size=10, seed=5, img_size=4, augment="none", balanced=True, **options)
    return [labels.tolist() for _, labels in made.iterate(start, 23) if labels is not None]


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    unbroken = batches()
    assert batches(start=13) == unbroken[13:]
    assert unbroken[:10] != unbroken[10:20]  # the next epoch is another
    for epoch in (unbroken[:10], unbroken[10:20]):
        assert sorted(label for batch in epoch for label in batch) == [0] * 25 + [1] * 25 + [2] * 25 + [3] * 25


def test_two_processes_share_an_epoch() -> None:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 4, 4)
    data, shared = Packed(images, LABELS, list("abcd")), []
    for rank in (0, 1):
        made = Batches(data, batch_size=5, seed=5, img_size=4, augment="none", balanced=True, rank=rank, world=2)
        shared.append([labels.tolist() for _, labels in made.iterate(0, 10) if labels is not None])
    assert [one + other for one, other in zip(*shared, strict=True)] == batches()[:10]


def test_counts_say_the_smallest_and_the_largest_class() -> None:
    text = class_counts(LABELS, ["cat", "dog", "newt", "owl", "yak"]).text()
    assert text == "100 images in 4 classes, from 3 (newt) to 70 (cat); 1 of 5 classes have none"
    several = class_counts(torch.tensor([[1.0, 0], [1, 1], [0, 0]]), ["a", "b"])
    assert several.counts == [2, 1] and several.images == 3
