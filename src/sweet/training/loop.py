"""The training loop of every verb: steps, schedule, accumulation, clipping, checkpoints, resume."""

from __future__ import annotations

import datetime
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sweet.data import step_generator
from sweet.data.batches import BatchSource
from sweet.errors import UserError
from sweet.recipes.resolved import total_steps
from sweet.recipes.schema import OptimKeys, TrainKeys
from sweet.storage.records import TrainingRecord

from .checkpoint import Checkpoint, load_checkpoint, model_tensors, optimizer_tensors, save_checkpoint
from .device import can_compile
from .log import RunLog

LossFunction = Callable[[nn.Module, Any, Any, int], Tensor]
"""``(model, inputs, targets, micro_step)`` -> the mean loss of a micro-batch, a scalar in float32."""


class ParameterGroup(TypedDict, total=False):
    """A parameter group of AdamW; its learning rate is the schedule's times ``lr_scale`` (1 by default)."""

    params: Sequence[nn.Parameter]
    weight_decay: float
    lr_scale: float


@dataclass(frozen=True)
class TrainResult:
    """What a run took, over all its sessions, and the loss of its last step."""

    steps: int
    images: int
    seconds: float
    loss: float

    def record(self, accelerator: Accelerator, **more: Any) -> TrainingRecord:
        """For ``config.json``, as finished now; ``more`` are further fields."""
        return TrainingRecord(
            steps=self.steps,
            images=self.images,
            loss=round(self.loss, 5),
            seconds=round(self.seconds, 1),
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
) -> TrainResult:
    """Train ``model`` in place; bit-exact on a CPU when interrupted and resumed.

    Arguments: ``groups`` are AdamW's. ``batches`` gives micro-batches, ``optim.accumulate`` of which make a step.
    ``run`` is the folder of checkpoints and logs, None writes nothing; ``resume`` goes on from its newest checkpoint.
    ``ema`` is timm's averaged copy of the model, updated after each step.
    Returns: what the run took.
    Raises: UserError for a checkpoint of another model, FloatingPointError when the loss ends as no number.
    Ctrl-C finishes the step and saves a checkpoint before it is passed on.
    """
    accumulate = optim.accumulate
    steps = total_steps(keys, max(1, batches.steps_per_epoch // accumulate))
    state = _TrainState(model, groups, keys, optim, accelerator, ema)
    if resume and run is not None:
        state.restore(run)
    log = RunLog(run, accelerator, start=state.done, steps=steps, quiet=quiet)
    state.model.train()
    first = state.done * accumulate
    try:
        for micro, batch in enumerate(batches.iterate(first, steps * accumulate), first):
            step = micro // accumulate
            lr = learning_rate(step, steps, keys.lr, optim)
            with uninterrupted():
                state.micro_step(loss_of, *batch, micro, lr)
                if state.done <= step:  # more micro-batches belong to this step
                    continue
                log.step(step, state.loss, keys.batch_size, lr)
            if state.done % keys.checkpoint_every == 0 and state.done < steps:
                state.save(run)
    except KeyboardInterrupt:
        if run is not None:
            log.note(f"interrupted: saving a checkpoint at step {state.done}")
            state.save(run)
        raise
    finally:
        log.close()
    loss = float(state.loss)
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} after step {state.done}; try a lower lr or optim.precision=fp32")
    return TrainResult(steps, steps * keys.batch_size, state.seconds, loss)


class _TrainState:
    """A model and its optimiser after ``done`` steps; ``loss`` is that of the last one."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[ParameterGroup],
        keys: TrainKeys,
        optim: OptimKeys,
        accelerator: Accelerator,
        ema: Any,
    ) -> None:
        self.plain, self.ema, self.accelerator = model, ema, accelerator
        self.average = None if ema is None else ema.module
        self.seed, self.optim = keys.seed, optim
        fused = accelerator.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW([dict(g) for g in groups], lr=keys.lr, betas=optim.betas, fused=fused)
        if optim.compile and can_compile(accelerator.device):
            torch.compiler.reset()  # models before this one count against the compiler's limit of variants
            # that it looks past the rotary table's cache, which changes nothing
            warnings.filterwarnings("ignore", "Dynamo detected a call to a")
            model.compile()  # in place: the names of its parameters stay
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.done, self.loss, self.losses = 0, torch.zeros(()), list[Tensor]()
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent, earlier sessions of the run included."""
        return time.perf_counter() - self.began

    def micro_step(self, loss_of: LossFunction, inputs: Any, targets: Any, micro: int, lr: float) -> None:
        """Forward and backward of micro-batch ``micro``; the last one of a step also updates the weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        # dropout and stochastic depth draw from the global generator: make it a function of the step too
        generator = step_generator(self.seed, micro, self.accelerator.process_index, "global")
        torch.manual_seed(generator.initial_seed())
        with self.accelerator.accumulate(self.model):
            loss = loss_of(self.model, inputs, targets, micro)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients and self.optim.clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.optim.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.losses.append(loss.detach())
        if len(self.losses) == self.optim.accumulate:
            self.loss, self.losses = torch.stack(self.losses).mean(), []
            self.done += 1
            if self.ema is not None:
                self.ema.update(self.plain, step=self.done)

    def save(self, run: Path | None) -> None:
        """Write a checkpoint, in the first of several processes."""
        if run is not None and self.accelerator.is_main_process:
            tensors = model_tensors(self.plain, self.average)
            moments = optimizer_tensors(self.optimizer.optimizer, self.plain)
            save_checkpoint(run, Checkpoint(self.done, self.seconds, float(self.loss), tensors, moments))

    def restore(self, run: Path) -> None:
        """Go on from the newest checkpoint, if there is one. Raises UserError for one of another model."""
        found = load_checkpoint(run)
        if found is None:
            return
        try:
            found.restore(self.plain, self.average, self.optimizer.optimizer)
        except RuntimeError:
            raise UserError(f"--resume: {run} was begun with another model; resume it with its own recipe") from None
        self.done, self.loss = found.step, torch.tensor(found.loss)
        self.began = time.perf_counter() - found.seconds


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: weights in the middle of a step are no checkpoint."""
    main = threading.current_thread() is threading.main_thread()  # only this one gets signals
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
        yield
        return
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt
