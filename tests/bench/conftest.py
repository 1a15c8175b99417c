"""Benches whose cells are so small that starting processes would take most of the time."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.context import ForkServerContext

import pytest

from sweet.bench import schedule


@pytest.fixture(scope="module", autouse=True)
def small_processes(processes: ForkServerContext) -> Iterator[None]:
    """Workers are forks that have torch already, of one thread: so small a step is slower with two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule.multiprocessing, "get_context", lambda _: processes)
        patch.setattr(schedule, "cores", lambda: 1)
        yield
