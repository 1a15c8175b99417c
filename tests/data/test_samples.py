"""Batches made sample by sample: the order of Batches, the same with and without workers, errors in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sweet.data import Batches, Packed, Samples, in_order
from sweet.errors import UserError


def load(index: int, generator: torch.Generator) -> tuple[int, Tensor]:
    return index, torch.rand(2, generator=generator)


def collate(samples: list[Any]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    return torch.tensor([index for index, _ in samples]), [{"drawn": drawn} for _, drawn in samples]


def samples(**changes: Any) -> Samples:
    return Samples(10, load, collate, **({"batch_size": 4, "seed": 1} | changes))


def drawn(batch: tuple[Any, Any]) -> list[list[float]]:
    return [target["drawn"].tolist() for target in batch[1]]


def test_a_step_is_a_function_of_seed_and_step() -> None:
    ahead = list(samples().iterate(1, 5))
    for step, batch in enumerate(ahead, start=1):
        assert batch[0].tolist() == samples().at(step)[0].tolist()
        assert drawn(batch) == drawn(samples().at(step))
    assert drawn(ahead[0]) != drawn(ahead[1]) != drawn(samples(seed=2).at(2))
    assert samples().steps_per_epoch == 2


def test_the_order_is_that_of_batches() -> None:
    packed = Packed(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), None, None)
    plain = Batches(packed, batch_size=4, seed=1, img_size=4, augment="none")
    for step in range(6):
        assert samples().at(step)[0].tolist() == plain.indices(step).tolist()


def test_processes_share_a_step() -> None:
    shares = [samples(rank=rank, world=2).at(0) for rank in (0, 1)]
    assert len({*shares[0][0].tolist(), *shares[1][0].tolist()}) == 8
    assert drawn(shares[0]) != drawn(shares[1])


@pytest.mark.slow
def test_workers_change_nothing() -> None:
    here, there = (list(samples(workers=workers).iterate(0, 3)) for workers in (0, 2))
    assert [drawn(batch) for batch in here] == [drawn(batch) for batch in there]


def test_all_in_order() -> None:
    batches = in_order(5, lambda i: (i, torch.tensor(i)), collate, batch_size=2)
    assert [batch[0].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def broken(index: int, generator: torch.Generator) -> Any:
    raise UserError(f"image {index}: damaged")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_image_is_one_line(workers: int) -> None:
    with pytest.raises(UserError, match=r"^image \d: damaged$"):
        list(Samples(3, broken, collate, batch_size=1, seed=0, workers=workers).iterate(0, 1))
