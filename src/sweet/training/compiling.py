"""torch.compile: when it is worth its start, and how a training goes on where it does not work."""

from __future__ import annotations

import os
import shutil
import warnings
from typing import TypeVar

import torch
from torch import nn

from sweet.console import warn
from sweet.recipes.schema import OptimKeys

ON_A_CPU, ON_A_GPU = 2e13, 5e15  # training FLOPs from which on it is worth its start: some minutes of work
BROKEN = (torch._dynamo.exc.TorchDynamoException, OSError, ImportError)  # of a compiler, or of its cache
O = TypeVar("O", bound=OptimKeys)  # noqa: E741


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works here: on a CPU it needs a C++ compiler."""
    return device.type != "cpu" or any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))


def decided(optim: O, flops: float, device: torch.device, *, varies: bool = False) -> O:
    """The keys with ``compile: auto`` made true or false, for a training of so many FLOPs in all.

    By the work of the whole training, so that a resumed one decides the same. False where the network ``varies`` from
    step to step: each of its shapes would be compiled.
    """
    if optim.compile != "auto":
        return optim
    worth = not varies and flops >= (ON_A_CPU if device.type == "cpu" else ON_A_GPU)
    return optim.model_copy(update={"compile": worth})


def compile_in_place(model: nn.Module) -> None:
    """The names of its parameters stay."""
    torch.compiler.reset()  # models before this one count against the compiler's limit of variants
    # that it looks past the rotary table's cache, which changes nothing
    warnings.filterwarnings("ignore", "Dynamo detected a call to a")
    model.compile()


def give_up(model: nn.Module, problem: BaseException) -> None:
    """Undo :func:`compile_in_place`, with a warning."""
    lines = [line for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    warn(f"torch.compile does not work here ({lines[0][:200]}); going on without it, which is slower")
    model._compiled_call_impl = None
