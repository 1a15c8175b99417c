"""The training loop of every verb: steps, schedule, accumulation, clipping, checkpoints, resume."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from sweet import interrupts
from sweet.data.batches import BatchSource
from sweet.data.identity import Identity
from sweet.errors import UserError
from sweet.recipes.resolved import total_steps
from sweet.recipes.schema import OptimKeys, TrainKeys
from sweet.storage.records import TrainingRecord
from sweet.tasks.task import Metrics

from . import nonfinite
from .checkpoint import set_aside, steps_of
from .log import RunLog
from .ranks import PeerLost, StopVote, lost_peer
from .state import LossFunction, ParameterGroup, TrainState
from .validation import Validation

__all__ = ["LossFunction", "ParameterGroup", "TrainResult", "learning_rate", "micro_batch_size", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a run took, over all its sessions, and the loss of its last step.

    ``best_step`` (and ``best_epoch``) is the one that is kept, of a run that was validated; ``metrics`` are its own
    where they are those of the last step.
    """

    steps: int
    images: int
    seconds: float
    loss: float
    best_step: int | None = None
    best_epoch: float | None = None
    metrics: Metrics | None = None

    def record(self, accelerator: Accelerator, **more: Any) -> TrainingRecord:
        """For ``config.json``, as finished now; ``more`` are further fields."""
        return TrainingRecord(
            steps=self.steps,
            images=self.images,
            loss=round(self.loss, 5),
            seconds=round(self.seconds, 1),
            best_step=self.best_step,
            best_epoch=self.best_epoch,
            device=str(accelerator.device),
            precision=str(accelerator.mixed_precision),
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **more,
        )


def micro_batch_size(keys: TrainKeys, accumulate: int, world: int) -> int:
    """Images in one forward pass of one of ``world`` processes. Raises UserError when the batch does not divide."""
    if keys.batch_size % (accumulate * world):
        raise UserError(
            f"batch_size={keys.batch_size}: not a multiple of {accumulate} micro-batches x {world} processes"
        )
    return keys.batch_size // (accumulate * world)


def learning_rate(step: int, steps: int, peak: float, optim: OptimKeys) -> float:
    """Of step ``step`` of ``steps``: linear warm-up, then half a cosine to ``min_lr``, or a tenth at each milestone."""
    warmup = int(optim.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if optim.milestones is not None:
        return peak * 0.1 ** sum(step >= int(share * steps) for share in optim.milestones)
    progress = (step - warmup) / max(1, steps - warmup)
    return optim.min_lr + (peak - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: nn.Module,
    groups: Sequence[ParameterGroup],
    batches: BatchSource,
    loss_of: LossFunction,
    *,
    keys: TrainKeys,
    optim: OptimKeys,
    accelerator: Accelerator,
    run: Path | None,
    resume: bool = False,
    quiet: bool = False,
    ema: Any = None,
    images: Mapping[str, Identity] | None = None,
    validation: Validation | None = None,
) -> TrainResult:
    """Train ``model`` in place; bit-exact on a CPU when interrupted and resumed.

    Arguments: ``groups`` are the optimiser's. ``batches`` gives micro-batches, ``optim.accumulate`` of which make a
    step. ``run`` is the folder of checkpoints and logs, None writes nothing; ``resume`` goes on from its newest one.
    ``ema`` is timm's averaged copy of the model, updated after each step. ``images`` (split -> identity) must be those
    of the checkpoint. ``validation`` says when the model is evaluated; it ends as the best that was seen then, for
    which it needs a ``run``.
    Returns: what the run took.
    Raises: UserError for a checkpoint of another model or of other images, NonFinite (a UserError) when the loss or a
    weight is no number.
    Signals and errors between steps save a checkpoint before they are passed on; a signal finishes the step first.
    """
    with interrupts.listening():
        steps = total_steps(keys, max(1, batches.steps_per_epoch // optim.accumulate))
        state = TrainState(model, groups, keys, optim, accelerator, ema, images or {})
        events: list[nonfinite.Event] = []
        if resume and run is not None:
            state.restore(run)
            events = nonfinite.read_events(run)
        validated = state.validated.step
        log = RunLog(run, accelerator, start=state.done, steps=steps, quiet=quiet, validated=validated, keys=keys)
        session = _Session(state, batches, loss_of, keys, optim, run, log, steps, events, validation)
        state.model.train()
        if state.compiled and state.done < steps:
            log.note("compiling the network: the first step takes some minutes (optim.compile=false begins at once)")
        try:
            session.work()
            state.hand_over()
        except (KeyboardInterrupt, Exception) as problem:
            error = session.rescue(problem)
            if error is problem:
                raise
            raise error from None
        finally:
            log.close()
    if validation is not None and run is not None:
        state.take_best(run)
    return session.result()


@dataclass
class _Session:
    """One process's part in a run, from where it is to the end."""

    state: TrainState
    batches: BatchSource
    loss_of: LossFunction
    keys: TrainKeys
    optim: OptimKeys
    run: Path | None
    log: RunLog
    steps: int
    events: Sequence[nonfinite.Event]
    validation: Validation | None

    def __post_init__(self) -> None:
        accelerator = self.state.accelerator
        self.alone, self.vote = accelerator.num_processes == 1, StopVote(accelerator)
        self.watch, self.saved, self.lr = nonfinite.LossWatch(), self.state.done, 0.0
        self.together = not self.state.divided  # whether a checkpoint can be written: it takes all that hold a part
        self.cheap = accelerator.device.type == "cpu"  # to look at a loss: nothing is waited for
        self.metrics: Metrics | None = None  # of the last validation of this session

    def work(self) -> None:
        """Train to the end, and check what came out.

        A process alone obeys a signal at once where it waits for images; several stop after the same step.
        """
        with nullcontext() if self.alone else interrupts.finished_first():
            self.validate()  # one that a signal has interrupted
            for start, stop in nonfinite.segments(self.state.done, self.steps, self.events):
                if not self.enough:
                    self.leave_out(start)
                    self.train(start, stop)
            if not self.enough:
                self.leave_out(self.steps)
            self.check()
            self.validate()
        interrupts.obey()

    def train(self, start: int, stop: int) -> None:
        """Steps ``start`` to ``stop`` (from 0), or fewer where the validation says that it is enough."""
        state, accumulate = self.state, self.optim.accumulate
        first = start * accumulate
        for micro, batch in enumerate(self.log.waiting(self.batches.iterate(first, stop * accumulate)), first):
            self.micro_step(batch, micro)
            if (micro + 1) % accumulate:
                continue
            self.validate()
            if self.enough:
                break
            if state.done % self.keys.checkpoint_every == 0 and state.done < self.steps:
                self.save()

    def validate(self) -> None:
        """Evaluate the model where that is due, and save it where it is the best so far."""
        plan, state, began = self.validation, self.state, time.perf_counter()
        if plan is None or not plan.due(state.done, self.steps, state.validated):
            return
        self.check()
        state.hand_over()
        self.metrics = plan.measure()
        state.model.train()
        [score] = broadcast_object_list([plan.score(self.metrics)])  # one decision for all processes
        state.validated = plan.joined(state.validated, state.done, score)
        text = plan.text(state.done, self.steps, score, state.validated)
        self.log.validated(state.done, plan.curve(self.metrics), text, time.perf_counter() - began)
        if state.validated.best == state.done and state.done < self.steps:
            self.save()
        if self.enough and state.done < self.steps:
            self.log.note(f"no better one in {plan.patience} validations: the training ends after step {state.done}")

    @property
    def enough(self) -> bool:
        """Whether the validation has ended the training."""
        return self.validation is not None and self.validation.enough(self.state.validated)

    def result(self) -> TrainResult:
        """What the run took."""
        state, plan = self.state, self.validation
        computed = sum(stop - start for start, stop in nonfinite.segments(0, state.done, self.events))
        result = TrainResult(state.done, computed * self.keys.batch_size, state.seconds, float(state.loss))
        if plan is None:
            return result
        best = state.validated.best
        metrics = self.metrics if best == state.done else None
        return replace(result, best_step=best, best_epoch=plan.epoch(best), metrics=metrics)

    def micro_step(self, batch: tuple[Any, Any], micro: int) -> None:
        """One forward and backward pass; with the last one of a step, what follows a step."""
        state, step = self.state, micro // self.optim.accumulate
        self.lr = learning_rate(step, self.steps, self.keys.lr, self.optim)
        interrupts.obey()
        with interrupts.finished_first():
            state.micro_step(self.loss_of, *batch, micro, self.lr)
            if state.done <= step:  # more micro-batches belong to this step
                return
            self.watch.add(state.done, state.loss)
            if self.cheap or self.log.due(state.done):
                self.look()
            self.log.step(step, state.loss, self.keys.batch_size, self.lr)
        if not self.alone and self.vote.any(interrupts.received() is not None):
            self.together = True
            raise interrupts.Interrupted(interrupts.received() or interrupts.SIGNALS[0])

    def leave_out(self, step: int) -> None:
        """Go to ``step`` (from 0) without training, over what led to a loss that was no number."""
        if self.state.done < step:
            self.log.note(f"steps {self.state.done + 1} to {step} are left out, see {nonfinite.FILE}")
            self.state.done = step

    def look(self) -> None:
        """Raises NonFinite when a loss since the last look is no number; several processes have the same losses."""
        found = self.watch.first_bad()
        if found is not None:
            self.fail(found[0], "the loss", found[1])

    def check(self) -> None:
        """As :meth:`look`, the weights too."""
        self.look()
        broken = self.state.broken_weight()
        if broken is not None:
            self.fail(self.state.done, f"a number of {broken}", math.nan)

    def fail(self, step: int, what: str, value: float) -> None:
        """Raises NonFinite, having written down what happened.

        A checkpoint is good when the step after it gave a number.
        """
        good = max([0, *(known for known in steps_of(self.run) if known < step - 1)]) if self.run is not None else 0
        settings = (self.keys, self.optim, self.lr, self.state.accelerator.num_processes)
        event = nonfinite.describe(step, what, value, good, *settings, self.batches)
        if self.state.accelerator.is_main_process and self.run is not None:
            nonfinite.write_event(self.run, event)
            set_aside(self.run, step - 1)
        raise nonfinite.error_of(event, self.run)

    def save(self) -> None:
        """A checkpoint, if all is finite. No signal ends it."""
        with interrupts.never_stopped():
            self.check()
            self.state.save(self.run)
            self.saved = self.state.done

    def rescue(self, problem: BaseException) -> BaseException:
        """Save what is whole, once, and say so. Returns the error that the run ends with."""
        state, stopped = self.state, interrupts.received() is not None
        if self.run is not None and state.whole and self.together and not isinstance(problem, nonfinite.NonFinite):
            interrupted = stopped or isinstance(problem, KeyboardInterrupt)
            why = f"interrupted by {interrupts.signal_name()}" if interrupted else "stopped by an error"
            what = f"saving a checkpoint at step {state.done}" if state.done else "the first step was not done"
            onward = "; the same command with --resume (and no --overwrite) goes on from there"
            self.log.note(f"{why}: {what}{onward}")
            if state.done > self.saved:
                with suppress(Exception):  # the first problem is the one to hear of
                    self.save()
        if stopped and isinstance(problem, Exception) and not isinstance(problem, UserError):
            return interrupts.Interrupted(interrupts.received() or 0)
        if isinstance(problem, torch.OutOfMemoryError):
            return out_of_memory(self.keys, self.optim, state.accelerator.num_processes)
        if lost_peer(problem, state.accelerator.num_processes):
            where = f"; --resume goes on from step {self.saved}" if self.run is not None else ""
            return PeerLost(f"another process of this run has ended, so this one stops after step {state.done}{where}")
        return problem


def out_of_memory(keys: TrainKeys, optim: OptimKeys, world: int) -> UserError:
    """The line that names the micro-batch to try."""
    now = keys.batch_size // (optim.accumulate * world)
    parts = range(2 * optim.accumulate, keys.batch_size // world + 1)
    accumulate = next((n for n in parts if keys.batch_size % (n * world) == 0), None)
    used = f"optim.accumulate={optim.accumulate}: the GPU has too little memory for {now} images at a time"
    if accumulate is None:
        return UserError(f"{used}; try a smaller model or data.img_size, or a smaller batch_size")
    return UserError(f"{used}; try optim.accumulate={accumulate}, {keys.batch_size // (accumulate * world)} at a time")
