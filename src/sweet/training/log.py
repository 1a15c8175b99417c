"""What a run reports: lines of its logs, TensorBoard, and a progress bar on a terminal.

``metrics.jsonl`` has a line for each interval of training, ``validation.jsonl`` one for each validation.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator

from sweet.console import clock, close_bar, listened_to, open_bar, report, say
from sweet.files import dotted, write_text
from sweet.recipes.schema import TrainKeys
from sweet.storage.layout import TRAINING_LOG, VALIDATION_LOG

from .trackers import start_trackers

MEASURED = "val_"  # before the names of what is measured on validation images

T = TypeVar("T")


class RunLog:
    """Collects losses without synchronising the device and reports them every ``every`` steps.

    The run goes from step ``start`` to ``steps`` and was validated up to step ``validated``; ``run`` None writes no
    file, ``quiet`` shows nothing. ``keys`` are the recipe's.
    """

    def __init__(
        self,
        run: Path | None,
        accelerator: Accelerator,
        *,
        start: int,
        steps: int,
        quiet: bool,
        validated: int = 0,
        keys: TrainKeys,
    ) -> None:
        self.accelerator, self.steps = accelerator, steps
        self.quiet = quiet or listened_to() or not accelerator.is_main_process
        self.every = max(1, min(50, steps // 20))
        self.run = run if accelerator.is_main_process else None
        if run is not None:
            start_trackers(accelerator, run, keys.log_with, dotted(keys.model_dump(mode="json")))
        if self.run is not None:
            _forget_after(self.run, start, validated)
        self.losses: list[Any] = []
        self.images = 0
        self.start, self.started = start, time.perf_counter()
        self.since, self.waited = self.started, 0.0
        self.bar = None if self.quiet else open_bar(stays=True)
        if self.bar is not None:
            self.task = self.bar.add_task("training", total=steps, completed=start, status="")

    def due(self, done: int) -> bool:
        """Whether the step ``done`` (from 1) ends an interval."""
        return done % self.every == 0 or done == self.steps

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, and the time that each is waited for."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - began
            yield batch

    def step(self, step: int, loss: Any, images: int, lr: float) -> None:
        """Step ``step`` (from 0) is done; ``loss`` is a detached tensor."""
        self.losses.append(loss)
        self.images += images
        done = step + 1
        if self.bar is not None:
            self.bar.update(self.task, completed=done)
        if not self.due(done):
            return
        mean = sum(float(loss) for loss in self.losses) / len(self.losses)
        now = time.perf_counter()
        taken = max(now - self.since, 1e-9)
        speed, wait = self.images / taken, self.waited / taken
        shown = {"loss": mean, "lr": lr, "img_per_s": round(speed, 1), "data_wait": round(wait, 3)}
        self._write(TRAINING_LOG, done, shown)
        status = f"loss {mean:.4f}  {speed:.0f} img/s  data {wait:.0%}"
        if self.bar is not None:
            self.bar.update(self.task, status=status)
        else:
            left = clock((now - self.started) / (done - self.start) * (self.steps - done))
            self.note(f"step {done}/{self.steps}  {status}  ETA {left}")
        self.losses, self.images, self.since, self.waited = [], 0, now, 0.0

    def validated(self, step: int, values: Mapping[str, float], text: str, seconds: float) -> None:
        """The run was validated after ``step`` steps, which took ``seconds`` that are no time of training."""
        self._write(VALIDATION_LOG, step, {f"{MEASURED}{key}": value for key, value in values.items()})
        self.note(text)
        self.since += seconds

    def _write(self, log: str, step: int, values: Mapping[str, float]) -> None:
        """A line of a log and points of TensorBoard's curves."""
        if self.run is not None:
            self.run.mkdir(parents=True, exist_ok=True)
            with (self.run / log).open("a") as file:
                # strict JSON has no NaN
                strict = {key: value if math.isfinite(value) else None for key, value in values.items()}
                file.write(json.dumps({"step": step, **strict}, allow_nan=False) + "\n")
        self.accelerator.log(values, step=step)
        report("training", step, self.steps, values)

    def note(self, text: str) -> None:
        """A line on stderr."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        elif not self.quiet:
            say(text)

    def close(self) -> None:
        """End the bar and the curves."""
        close_bar(self.bar)
        for tracker in self.accelerator.trackers:
            tracker.finish()


def _forget_after(run: Path, step: int, validated: int) -> None:
    """A resumed run repeats the steps since its checkpoint; drop what the interrupted one wrote about them.

    Earlier versions wrote validations into the log of the training: they go where they belong.
    """
    logs = [run / TRAINING_LOG, run / VALIDATION_LOG]
    texts = [path.read_text() for path in logs if path.is_file()]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.endswith("}")]
    for path, limit, is_training in zip(logs, (step, validated), (True, False), strict=True):
        kept = [line for line in lines if ("loss" in line) == is_training and line.get("step", 0) <= limit]
        if kept or path.is_file():
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
