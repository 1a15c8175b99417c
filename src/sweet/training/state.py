"""A model in training: its optimiser, one step of it, its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from accelerate import Accelerator
from timm.optim.muon import Muon
from torch import Tensor, nn

from sweet.data import step_generator
from sweet.data.identity import Identity, differences
from sweet.errors import UserError
from sweet.recipes.schema import OptimKeys, TrainKeys

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .compiling import BROKEN, can_compile, compile_in_place, give_up
from .divided import in_parts, wanted, whole
from .validation import Validated

LossFunction = Callable[[nn.Module, Any, Any, int], Tensor]
"""``(model, inputs, targets, micro_step)`` -> the mean loss of a micro-batch, a scalar in float32."""


class ParameterGroup(TypedDict, total=False):
    """A parameter group of the optimiser; its learning rate is the schedule's times ``lr_scale`` (1 by default)."""

    params: Sequence[nn.Parameter]
    weight_decay: float
    lr_scale: float


def make_optimizer(
    groups: Sequence[ParameterGroup], lr: float, optim: OptimKeys, *, fused: bool
) -> torch.optim.Optimizer:
    """AdamW; or Muon (Jordan et al. 2024) for matrices, its steps as large as AdamW's, and NAdamW for the rest."""
    parameters = [dict(group) for group in groups]
    if optim.name == "muon":
        return Muon(parameters, lr=lr, betas=optim.betas, nesterov=True)
    return torch.optim.AdamW(parameters, lr=lr, betas=optim.betas, fused=fused)


class TrainState:
    """A model and its optimiser after ``done`` steps; ``loss`` is that of the last one, the mean over all processes.

    ``images`` says what it is trained on, ``validated`` how good it was so far. ``whole`` is false while weights,
    average and ``done`` do not fit together. ``plain`` is what learns: the model, or where it is divided among
    processes a copy of it.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[ParameterGroup],
        keys: TrainKeys,
        optim: OptimKeys,
        accelerator: Accelerator,
        ema: Any,
        images: Mapping[str, Identity],
    ) -> None:
        self.given, self.plain, self.ema, self.accelerator, self.images = model, model, ema, accelerator, images
        self.seed, self.optim = keys.seed, optim
        self.divided = wanted() and accelerator.num_processes > 1
        if self.divided:
            self.plain, now = in_parts(model, accelerator.device)
            groups = [{**group, "params": [now[p] for p in group["params"]]} for group in groups]
        optimizer = make_optimizer(groups, keys.lr, optim, fused=accelerator.device.type in ("cpu", "cuda"))
        self.compiled = optim.compile is True and can_compile(accelerator.device)
        if self.compiled:
            compile_in_place(self.plain)
        self.optimizer = accelerator.prepare(optimizer)
        self.model = accelerator.prepare_model(self.plain, evaluation_mode=self.divided)  # that is: not in DDP
        self.done, self.loss, self.losses = 0, torch.zeros(()), list[Tensor]()
        self.began, self.whole, self.validated = time.perf_counter(), True, Validated()

    @property
    def seconds(self) -> float:
        """Time spent, earlier sessions of the run included."""
        return time.perf_counter() - self.began

    @property
    def average(self) -> Any:
        """The averaged model, if there is one."""
        return None if self.ema is None else self.ema.module

    def micro_step(self, loss_of: LossFunction, inputs: Any, targets: Any, micro: int, lr: float) -> None:
        """Forward and backward of micro-batch ``micro``; the last one of a step also updates the weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        with self.accelerator.accumulate(self.model):
            loss = self.backward(loss_of, inputs, targets, micro)
            if self.accelerator.sync_gradients and self.optim.clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.optim.clip)
            self.losses.append(loss.detach())
            last = len(self.losses) == self.optim.accumulate
            if last:
                mean = torch.stack(self.losses).mean()
                self.loss, self.losses = self.accelerator.reduce(mean, "mean"), []
                self.whole = False
            self.optimizer.step()
            self.optimizer.zero_grad()
        if last:
            self.done += 1
            if self.ema is not None:
                self.ema.update(self.plain, step=self.done)
            self.whole = True

    def backward(self, loss_of: LossFunction, inputs: Any, targets: Any, micro: int) -> Tensor:
        """The loss of a micro-batch, and its gradients; without torch.compile from where that does not work."""
        # dropout and stochastic depth draw from the global generator: make it a function of the step too
        generator = step_generator(self.seed, micro, self.accelerator.process_index, "global")
        torch.manual_seed(generator.initial_seed())
        try:
            loss = loss_of(self.model, inputs, targets, micro)
            self.accelerator.backward(loss)
        except BROKEN as problem:
            if not self.compiled or self.losses:  # the gradients of the step are begun
                raise
            give_up(self.plain, problem)
            self.compiled = False
            self.optimizer.optimizer.zero_grad()
            return self.backward(loss_of, inputs, targets, micro)
        return loss

    def broken_weight(self) -> str | None:
        """The name of a weight that is not finite, if there is one."""
        tensors = whole(self.plain.state_dict()).items()
        return next((n for n, v in tensors if v.is_floating_point() and not bool(torch.isfinite(v).all())), None)

    def save(self, run: Path | None) -> None:
        """Write a checkpoint, in the first of several processes; all have to call it where the model is divided."""
        if run is None:
            return
        optimizer, numbers = self.optimizer.optimizer, (self.done, self.seconds, float(self.loss))
        checkpoint = Checkpoint.of(self.plain, self.average, optimizer, *numbers, self.images, self.validated)
        if self.accelerator.is_main_process:
            save_checkpoint(run, checkpoint)

    def hand_over(self) -> None:
        """Put what was learned into the model that was given; collective."""
        if self.divided:
            self.given.load_state_dict(whole(self.plain.state_dict()))
            self.given.to(self.accelerator.device)

    def restore(self, run: Path) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises UserError for one of another model, and for one of other images, naming what has changed.
        """
        found = load_checkpoint(run)
        if found is None:
            return
        changed = [
            f"{split}: {text}"
            for split, before in found.images.items()
            if split in self.images
            for text in differences(before, self.images[split])
        ]
        if changed:
            raise UserError(
                f"--resume: {run} was begun with other images ({'; '.join(changed)}); give it the same ones, or start "
                "anew with --overwrite"
            )
        try:
            found.restore(self.plain, self.average, self.optimizer.optimizer)
        except RuntimeError:
            raise UserError(f"--resume: {run} was begun with another model; resume it with its own recipe") from None
        self.done, self.loss, self.validated = found.step, torch.tensor(found.loss), found.validated
        self.began = time.perf_counter() - found.seconds

    def take_best(self, run: Path) -> None:
        """Give the model the weights of the best step that was validated, and its average, if it is not this one."""
        if self.validated.best < self.done and self.accelerator.is_main_process:
            found = load_checkpoint(run, self.validated.best)
            assert found is not None
            found.restore(self.given, self.average)
