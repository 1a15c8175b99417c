"""A loss or a weight that is no number: found at once, written down, and jumped over when the run is resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from sweet.data import step_generator
from sweet.data.batches import BatchSource
from sweet.errors import UserError
from sweet.files import read_json, write_json
from sweet.recipes.schema import OptimKeys, TrainKeys
from sweet.storage.overwrite import after_failure
from sweet.storage.ownership import NONFINITE
from sweet.storage.records import first_problem

FILE = NONFINITE  # in the run folder
LOWER = ", --resume lr=... lowers the rate too"
WINDOW = 100  # steps that a resumed run leaves out at most: those that led to the loss


class NonFinite(UserError, FloatingPointError):
    """The training has left the numbers."""


class MicroBatch(BaseModel):
    """What one forward and backward pass of the step was computed from."""

    model_config = ConfigDict(frozen=True)

    number: int  # from 0; crops, masks and widths are functions of (seed, number)
    images: list[int]  # indices into the training set, of all processes
    rng: int  # seed of torch's global generator in the first process (dropout, stochastic depth)


class Event(BaseModel):
    """One time that a run stopped because of a number.

    Steps count from 1, as in ``metrics.jsonl``. ``good`` is the step of the newest checkpoint after which a loss was
    still a number, 0 where there is none; one of ``step - 1`` is kept as ``checkpoints/nonfinite-step-N``. Steps
    ``skip[0]`` to ``skip[1]`` are left out when the run is resumed.
    """

    model_config = ConfigDict(frozen=True)

    step: int
    what: str
    value: str
    lr: float
    seed: int
    processes: int
    good: int
    skip: tuple[int, int]
    micro_batches: list[MicroBatch]


class Events(BaseModel):
    """All of ``nonfinite.json``."""

    model_config = ConfigDict(frozen=True)

    events: list[Event] = []


def read_events(run: Path) -> list[Event]:
    """What has happened in a run so far. Raises UserError naming the file when it is damaged."""
    path = run / FILE
    if not path.is_file():
        return []
    try:
        return Events.model_validate(read_json(path)).events
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None


def segments(start: int, steps: int, events: Sequence[Event]) -> Iterator[tuple[int, int]]:
    """Ranges of steps (from 0) between ``start`` and ``steps`` that are computed; the others are left out."""
    skipped = {step - 1 for event in events for step in range(event.skip[0], event.skip[1] + 1)}
    first = start
    for step in range(start, steps + 1):
        if step == steps or step in skipped:
            if first < step:
                yield first, step
            first = step + 1


def describe(
    step: int,
    what: str,
    value: float,
    good: int,
    keys: TrainKeys,
    optim: OptimKeys,
    lr: float,
    processes: int,
    batches: BatchSource,
) -> Event:
    """The event of step ``step`` (from 1), whose ``what`` is no number."""
    numbers = range((step - 1) * optim.accumulate, step * optim.accumulate)
    micro = [
        MicroBatch(
            number=number,
            images=batches.whole(number).tolist(),
            rng=step_generator(keys.seed, number, 0, "global").initial_seed(),
        )
        for number in numbers
    ]
    return Event(
        step=step,
        what=what,
        value=str(value),
        lr=lr,
        seed=keys.seed,
        processes=processes,
        good=good,
        skip=(max(good + 1, step - WINDOW + 1), step),
        micro_batches=micro,
    )


def write_event(run: Path, event: Event) -> None:
    """Add it to those of a run."""
    write_json(run / FILE, Events(events=[*read_events(run), event]).model_dump(mode="json"))


def error_of(event: Event, run: Path | None) -> NonFinite:
    """What is said about an event, and what to do."""
    happened = f"{event.what} is {event.value} at step {event.step}"
    if run is None:
        return NonFinite(f"{happened}; try a lower lr or optim.precision=fp32")
    good = f"the checkpoint of step {event.good}" if event.good else "the start"
    first, last = event.skip
    return NonFinite(
        f"--out {run}: {happened}, lr={event.lr:g}; nothing of it was saved (see {after_failure(run) / FILE}); "
        f"--resume goes back to {good} and leaves out {f'steps {first} to {last}' if first < last else f'step {last}'}"
        + LOWER
    )


class LossWatch:
    """Losses that nobody has looked at yet: looking waits for a GPU, so it is done at intervals there."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor) -> None:
        """``loss`` (a scalar) is that of step ``step`` (from 1)."""
        self.waiting.append((step, loss))

    def first_bad(self) -> tuple[int, float] | None:
        """The first of them that is no number, (step, value); none of them is looked at again."""
        waiting, self.waiting = self.waiting, []
        values = torch.stack([loss for _, loss in waiting]).tolist() if waiting else []
        pairs = zip(waiting, values, strict=True)
        return next(((step, value) for (step, _), value in pairs if not math.isfinite(value)), None)
