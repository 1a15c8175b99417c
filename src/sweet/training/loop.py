"""The training loop of every verb: steps, schedule, accumulation, clipping, checkpoints, resume."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sweet.data import step_generator
from sweet.errors import UserError
from sweet.recipes.resolved import total_steps
from sweet.recipes.schema import OptimKeys, TrainKeys

from .checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from .device import can_compile
from .log import RunLog


class BatchSource(Protocol):
    """A pure function of the step, which may be read ahead."""

    @property
    def steps_per_epoch(self) -> int: ...

    def iterate(self, start: int, stop: int) -> Iterator[tuple[Any, Any]]: ...


@dataclass
class TrainResult:
    """What a run cost."""

    steps: int
    images: int
    seconds: float
    loss: float


def micro_batch_size(keys: TrainKeys, accumulate: int, world: int) -> int:
    """Images in one forward pass of one process. Raises UserError when the batch does not divide."""
    if keys.batch_size % (accumulate * world):
        raise UserError(
            f"batch_size={keys.batch_size}: not a multiple of {accumulate} accumulated parts x {world} processes"
        )
    return keys.batch_size // (accumulate * world)


def learning_rate(step: int, steps: int, peak: float, optim: OptimKeys) -> float:
    """Linear warm-up over a share of the steps, then half a cosine down to ``min_lr``, or a tenth at each milestone."""
    warmup = int(optim.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if optim.milestones is not None:
        return peak * 0.1 ** sum(step >= int(share * steps) for share in optim.milestones)
    progress = (step - warmup) / max(1, steps - warmup)
    return optim.min_lr + (peak - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: nn.Module,
    groups: list[dict[str, Any]],
    batches: BatchSource,
    loss_of: Callable[[nn.Module, Any, Any, int], Tensor],
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

    ``groups`` are AdamW's parameter groups, each with an optional ``lr_scale``. ``loss_of(model, images, labels,
    micro_step)`` gives the loss of one part. ``ema`` is timm's averaged copy. ``run=None`` writes nothing. Ctrl-C
    finishes the step and saves a checkpoint before it is passed on. ``optim.compile`` compiles the model once, under
    the same names; a machine without a compiler goes on without.
    """
    accumulate = optim.accumulate
    steps = total_steps(keys, max(1, batches.steps_per_epoch // accumulate))
    fused = accelerator.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(groups, lr=keys.lr, betas=optim.betas, fused=fused)
    plain = model
    if optim.compile and can_compile(accelerator.device):
        torch.compiler.reset()  # models before this one count against the compiler's limit of variants
        # that it looks past the rotary table's cache, which changes nothing
        warnings.filterwarnings("ignore", "Dynamo detected a call to a")
        model.compile()
    model, optimizer = accelerator.prepare(model, optimizer)

    start, spent, last = 0, 0.0, torch.zeros(())
    if resume and run is not None and (found := load_checkpoint(run)) is not None:
        tensors, moments, state = found
        try:
            plain.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("ema|")})
        except RuntimeError:
            raise UserError(f"--resume: {run} was begun with another model; resume it with its own recipe") from None
        if ema is not None:
            ema.module.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ema|")})
        restore_optimizer(optimizer.optimizer, plain, moments)
        start, spent, last = state["step"], state["seconds"], torch.tensor(state["loss"])

    def checkpoint(done: int) -> None:
        if run is not None and accelerator.is_main_process:
            tensors = dict(plain.state_dict())
            if ema is not None:
                tensors |= {f"ema|{name}": value for name, value in ema.module.state_dict().items()}
            state = {"seconds": spent + time.perf_counter() - began, "loss": float(last)}
            save_checkpoint(run, done, tensors, optimizer_tensors(optimizer.optimizer, plain), state)

    if run is not None:
        accelerator.init_trackers("tensorboard")
    log = RunLog(run, accelerator, start=start, steps=steps, quiet=quiet)
    began = time.perf_counter()
    done = start
    model.train()
    try:
        parts: list[Tensor] = []
        for micro, (images, labels) in enumerate(
            batches.iterate(start * accumulate, steps * accumulate), start * accumulate
        ):
            step = micro // accumulate
            rate = learning_rate(step, steps, keys.lr, optim)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            # dropout and stochastic depth draw from the global generator: make it a function of the step too
            torch.manual_seed(step_generator(keys.seed, micro, accelerator.process_index, "global").initial_seed())
            with uninterrupted():
                with accelerator.accumulate(model):
                    loss = loss_of(model, images, labels, micro)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and optim.clip is not None:
                        accelerator.clip_grad_norm_(model.parameters(), optim.clip)
                    optimizer.step()
                    optimizer.zero_grad()
                parts.append(loss.detach())
                if len(parts) < accumulate:
                    continue
                last, parts = torch.stack(parts).mean(), []
                done = step + 1
                if ema is not None:
                    ema.update(plain, step=done)
                log.step(step, last, keys.batch_size, rate)
            if done % keys.checkpoint_every == 0 and done < steps:
                checkpoint(done)
    except KeyboardInterrupt:
        if run is not None:
            log.note(f"interrupted: saving a checkpoint at step {done}")
            checkpoint(done)
        raise
    finally:
        log.close()
        for tracker in accelerator.trackers:
            tracker.finish()
    final = float(last)
    if not math.isfinite(final):
        raise FloatingPointError(f"the loss is {final} after step {done}; try a lower lr or optim.precision=fp32")
    return TrainResult(steps, steps * keys.batch_size, spent + time.perf_counter() - began, final)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: weights in the middle of a step are no checkpoint."""
    main = threading.current_thread() is threading.main_thread()  # only this one gets signals
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
        yield
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked.is_set():
        raise KeyboardInterrupt
