"""What a run reports: a line of ``metrics.jsonl`` per interval, TensorBoard, and a progress bar on a terminal."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sweet.files import write_text

T = TypeVar("T")


class RunLog:
    """Collects losses without synchronising the device and reports them every ``every`` steps.

    The run goes from step ``start`` to ``steps``; ``run`` None writes no file, ``quiet`` shows nothing.
    """

    def __init__(self, run: Path | None, accelerator: Accelerator, *, start: int, steps: int, quiet: bool) -> None:
        self.accelerator, self.steps = accelerator, steps
        self.quiet = quiet or not accelerator.is_main_process
        self.every = max(1, min(50, steps // 20))
        self.metrics = run / "metrics.jsonl" if run is not None and accelerator.is_main_process else None
        if run is not None:
            accelerator.init_trackers("tensorboard")
        if self.metrics is not None:
            _forget_after(self.metrics, start)
        self.losses: list[Any] = []
        self.images = 0
        self.start, self.started = start, time.perf_counter()
        self.since, self.waited = self.started, 0.0
        console, status = Console(file=sys.stderr), TextColumn("{task.fields[status]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), status)
        self.bar = Progress(*columns, console=console, disable=self.quiet or not console.is_terminal)
        self.task = self.bar.add_task("training", total=steps, completed=start, status="")
        self.bar.start()

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
        self.bar.update(self.task, completed=done)
        if not self.due(done):
            return
        mean = sum(float(loss) for loss in self.losses) / len(self.losses)
        now = time.perf_counter()
        taken = max(now - self.since, 1e-9)
        speed, wait = self.images / taken, self.waited / taken
        self.write({"step": done, "loss": mean, "lr": lr, "img_per_s": round(speed, 1), "data_wait": round(wait, 3)})
        status = f"loss {mean:.4f}  {speed:.0f} img/s  data {wait:.0%}"
        self.bar.update(self.task, status=status)
        if self.bar.disable:
            seconds = (now - self.started) / (done - self.start) * (self.steps - done)
            left = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
            self.note(f"step {done}/{self.steps}  {status}  ETA {left}")
        self.losses, self.images, self.since, self.waited = [], 0, now, 0.0

    def write(self, values: dict[str, float]) -> None:
        """A line of ``metrics.jsonl`` and points of TensorBoard's curves; ``values`` name their ``step``."""
        if self.metrics is not None:
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a") as file:
                # strict JSON has no NaN
                strict = {key: value if math.isfinite(value) else None for key, value in values.items()}
                file.write(json.dumps(strict, allow_nan=False) + "\n")
        self.accelerator.log({k: v for k, v in values.items() if k != "step"}, step=int(values["step"]))

    def note(self, text: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar and the curves."""
        if not self.bar.disable:  # rich 13 would print an empty line
            self.bar.stop()
        for tracker in self.accelerator.trackers:
            tracker.finish()


def _forget_after(path: Path, step: int) -> None:
    """A resumed run repeats the steps since its checkpoint; drop what the interrupted one wrote about them."""
    if path.is_file():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
        write_text(path, "".join(line + "\n" for line in kept))
