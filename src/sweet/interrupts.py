"""How a signal ends a run: at the next moment at which nothing is lost, with the exit code that shells expect.

Ctrl-C, SIGTERM (Slurm, Kubernetes, torchrun), SIGHUP (a lost connection) and SIGUSR1 (Slurm's warning) mean the same:
save and stop. What a shell or ``nohup`` ignores stays ignored. Imports no torch, so that it can come before it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
PATIENCE = 3.0  # seconds after which a further signal is meant as one; until then it is a key that was held


class Interrupted(KeyboardInterrupt):
    """A signal, whose number is the argument, wants the end."""


@dataclass
class _State:
    first: int | None = None  # the signal that came first
    since: float = 0.0  # when the last one came that was obeyed
    process: int = 0  # whose signals these are: a worker that it forks just ends
    steps: int = 0  # blocks that are finished first
    saves: int = 0  # blocks that nothing ends


_state = _State()


@contextmanager
def listening() -> Iterator[None]:
    """Signals raise :class:`Interrupted` inside the block; a second one within :data:`PATIENCE` is taken for the first.

    Outside the main thread, and inside another such block, it changes nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    current = {number: signal.getsignal(number) for number in SIGNALS} if main else {}
    if not main or _handle in current.values():
        yield
        return
    _state.first, _state.process, _state.steps, _state.saves = None, os.getpid(), 0, 0
    mine = [number for number, handler in current.items() if handler not in (signal.SIG_IGN, None)]
    for number in mine:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, current[number])


@contextmanager
def finished_first() -> Iterator[None]:
    """A signal takes effect at the end of the block: a step of a training.

    It is obeyed inside all the same while torch.compile works, which takes minutes, and when it comes again after
    :data:`PATIENCE`.
    """
    _state.steps += 1
    try:
        yield
    finally:
        _state.steps -= 1
    obey()


@contextmanager
def never_stopped() -> Iterator[None]:
    """No signal ends the block: a save."""
    _state.saves += 1
    try:
        yield
    finally:
        _state.saves -= 1


def received() -> int | None:
    """The signal that came first, if any did."""
    return _state.first


def obey() -> None:
    """Raises :class:`Interrupted` when a signal has come and no block around this is to be finished first."""
    if _state.first is not None and not _state.steps and not _state.saves:
        _stop()


def signal_name() -> str:
    """How the received signal is called: ``SIGTERM``."""
    return "Ctrl-C" if _state.first in (None, signal.SIGINT) else signal.Signals(_state.first).name


def exit_code() -> int:
    """128 and the number of the signal: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 138 after SIGUSR1."""
    return 128 + (_state.first or signal.SIGINT)


def ignore() -> None:
    """From now on no signal does anything: the program is ending."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _handle(number: int, _: FrameType | None) -> None:
    if os.getpid() != _state.process:
        raise Interrupted(number)
    now = time.monotonic()
    again = _state.first is not None
    impatient = again and now - _state.since > PATIENCE
    if not again:
        _state.first, _state.since = number, now
    if _state.saves:
        return
    if _state.steps:
        if not again and _compiling():
            os.write(2, b"interrupted during torch.compile: the step is given up\n")
            _stop()
        if not impatient:
            return
    if not again or impatient:
        _stop()


def _stop() -> NoReturn:
    _state.since = time.monotonic()
    assert _state.first is not None
    raise Interrupted(_state.first)


def _compiling() -> bool:
    guards: Any = sys.modules.get("torch._guards")
    return guards is not None and guards.CompileContext.current_compile_id() is not None
