"""Checkpoints without pickle: a folder of safetensors that appears complete or not at all.

Random numbers need no place in it: data order, crops, masks, widths and dropout are functions of (seed, step, rank).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from sweet.data.identity import Identity
from sweet.files import read_json, read_tensors, sync, write_tensors
from sweet.template.slices import under

from .divided import part_of, whole
from .validation import Validated

KEPT = 2  # checkpoints of a run, besides the best
EMA = "ema|"  # before the names of averaged weights


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` optimiser steps, which took ``seconds`` and ended with ``loss``.

    ``images`` are the sets that it is about; none where a checkpoint was written before they were recorded.
    ``validated`` says which step was the best: the checkpoint of that one is kept as well.
    ``tensors`` are the model's, and its average's under ``ema|<name>``; ``optimizer`` holds ``<parameter>|<key>``.
    """

    step: int
    seconds: float
    loss: float
    tensors: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    images: Mapping[str, Identity] = field(default_factory=dict)
    validated: Validated = field(default_factory=Validated)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        ema: nn.Module | None,
        optimizer: Optimizer,
        step: int,
        seconds: float,
        loss: float,
        images: Mapping[str, Identity],
        validated: Validated,
    ) -> Checkpoint:
        """The state of a model, of its average and of its optimiser, not copied; collective where it is divided."""
        tensors = dict(model.state_dict())
        if ema is not None:
            tensors |= {f"{EMA}{name}": value for name, value in ema.state_dict().items()}
        moments = whole(optimizer_tensors(optimizer, model))
        return cls(step, seconds, loss, whole(tensors), moments, images, validated)

    def restore(self, model: nn.Module, ema: nn.Module | None, optimizer: Optimizer | None = None) -> None:
        """Put its tensors into a model, its average and its optimiser. Raises RuntimeError for another model."""
        own = model.state_dict()
        tensors = {name: value for name, value in self.tensors.items() if not name.startswith(EMA)}
        model.load_state_dict({name: part_of(value, own.get(name, value)) for name, value in tensors.items()})
        if ema is not None:
            ema.load_state_dict(under(EMA, self.tensors))
        if optimizer is not None:
            restore_optimizer(optimizer, model, self.optimizer)


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoints/step-<N>``, if not there: under a dotted name first, renamed once every byte is on disk."""
    folder, step = run / "checkpoints", checkpoint.step
    temporary, final = folder / f".step-{step}", folder / f"step-{step}"
    if final.is_dir():
        return
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_tensors(temporary / "model.safetensors", checkpoint.tensors)
    write_tensors(temporary / "optimizer.safetensors", checkpoint.optimizer)
    images = {split: one.model_dump() for split, one in checkpoint.images.items()}
    state = {"step": step, "seconds": checkpoint.seconds, "loss": checkpoint.loss, "images": images}
    state["validated"] = asdict(checkpoint.validated)
    (temporary / "state.json").write_text(json.dumps(state))
    sync(temporary / "state.json")
    sync(temporary)
    os.replace(temporary, final)
    sync(folder)
    steps = steps_of(run)
    best = {
        read_json(folder / f"step-{kept}" / "state.json").get("validated", {}).get("best") for kept in steps[-KEPT:]
    }
    for old in set(steps[:-KEPT]) - best:
        shutil.rmtree(folder / f"step-{old}")


def set_aside(run: Path, step: int) -> None:
    """Keep the checkpoint of a step, if there is one, as ``nonfinite-step-<N>``, from which no run goes on."""
    folder = run / "checkpoints"
    if (folder / f"step-{step}").is_dir():
        shutil.rmtree(folder / f"nonfinite-step-{step}", ignore_errors=True)
        os.replace(folder / f"step-{step}", folder / f"nonfinite-step-{step}")
        sync(folder)


def steps_of(run: Path) -> list[int]:
    """Steps that have a complete checkpoint, rising."""
    found = (re.fullmatch(r"step-(\d+)", entry.name) for entry in (run / "checkpoints").glob("step-*"))
    return sorted(int(match[1]) for match in found if match)


def load_checkpoint(run: Path, step: int | None = None) -> Checkpoint | None:
    """The checkpoint of a step, by default the newest of a run, on the CPU, or None."""
    steps = [known for known in steps_of(run) if step in (None, known)]
    if not steps:
        return None
    folder = run / "checkpoints" / f"step-{steps[-1]}"
    tensors, moments = (read_tensors(folder / f"{name}.safetensors") for name in ("model", "optimizer"))
    state = read_json(folder / "state.json")
    images = {split: Identity.model_validate(one) for split, one in state.get("images", {}).items()}
    validated = Validated(**state.get("validated", {}))
    return Checkpoint(state["step"], state["seconds"], state["loss"], tensors, moments, images, validated)


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Optimizer state as a flat dict ``<parameter>|<key>``."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}|{key}": value
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)  # what is none follows from the shape
    }


def restore_optimizer(optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`optimizer_tensors`; torch itself puts every tensor on the device where it belongs."""
    parameters = dict(model.named_parameters())
    names: dict[Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("|", 1)
        moment = value.shape == parameters[name].shape  # the others are counts
        state.setdefault(order.index(name), {})[key] = part_of(value, parameters[name]) if moment else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
