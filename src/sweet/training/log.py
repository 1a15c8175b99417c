"""What a run reports: a line of ``metrics.jsonl`` per interval, TensorBoard, and a progress bar on a terminal."""

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

from .trackers import start_trackers

VALIDATION = "val_"  # before the names of what is measured on validation images

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
        self.metrics = run / "metrics.jsonl" if run is not None and accelerator.is_main_process else None
        if run is not None:
            start_trackers(accelerator, run, keys.log_with, dotted(keys.model_dump(mode="json")))
        if self.metrics is not None:
            _forget_after(self.metrics, start, validated)
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
        self.write({"step": done, "loss": mean, "lr": lr, "img_per_s": round(speed, 1), "data_wait": round(wait, 3)})
        status = f"loss {mean:.4f}  {speed:.0f} img/s  data {wait:.0%}"
        if self.bar is not None:
            self.bar.update(self.task, status=status)
        else:
            left = clock((now - self.started) / (done - self.start) * (self.steps - done))
            self.note(f"step {done}/{self.steps}  {status}  ETA {left}")
        self.losses, self.images, self.since, self.waited = [], 0, now, 0.0

    def validated(self, step: int, values: Mapping[str, float], text: str, seconds: float) -> None:
        """The run was validated after ``step`` steps, which took ``seconds`` that are no time of training."""
        self.write({"step": step, **{f"{VALIDATION}{key}": value for key, value in values.items()}})
        self.note(text)
        self.since += seconds

    def write(self, values: dict[str, float]) -> None:
        """A line of ``metrics.jsonl`` and points of TensorBoard's curves; ``values`` name their ``step``."""
        if self.metrics is not None:
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a") as file:
                # strict JSON has no NaN
                strict = {key: value if math.isfinite(value) else None for key, value in values.items()}
                file.write(json.dumps(strict, allow_nan=False) + "\n")
        shown = {key: value for key, value in values.items() if key != "step"}
        self.accelerator.log(shown, step=int(values["step"]))
        report("training", int(values["step"]), self.steps, shown)

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


def _forget_after(path: Path, step: int, validated: int) -> None:
    """A resumed run repeats the steps since its checkpoint; drop what the interrupted one wrote about them."""
    if path.is_file():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        limits = (validated if f'"{VALIDATION}' in line else step for line in lines)
        kept = [line for line, limit in zip(lines, limits, strict=True) if json.loads(line).get("step", 0) <= limit]
        write_text(path, "".join(line + "\n" for line in kept))
