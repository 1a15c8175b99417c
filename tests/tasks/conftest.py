"""Every sample that a task makes for workers goes through pickle, as it does where these are spawned."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sweet.data import batches, samples


@pytest.fixture(autouse=True)
def pickled_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = batches.ahead

    def pickled(make: Callable[[int], Any], keys: range, workers: int) -> Iterator[Any]:
        return ahead(pickle.loads(pickle.dumps(make)), keys, workers)

    for module in (batches, samples):
        monkeypatch.setattr(module, "ahead", pickled)
