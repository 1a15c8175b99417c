"""One of several processes of a run, as torchrun would start it, over gloo.

Started by ``runpy`` with the globals JOB = {rank, port, environment, verb, arguments, resume, stop}: ``stop`` =
(step, rank, what) makes that process (None: every one) die by what="death", or send itself what="SIGTERM", at
that step.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any

from sweet import interrupts
from sweet.errors import UserError
from sweet.training.log import RunLog

JOB: dict[str, Any] = globals()["JOB"]
os.environ.update(
    RANK=str(JOB["rank"]),
    LOCAL_RANK=str(JOB["rank"]),
    WORLD_SIZE="2",
    LOCAL_WORLD_SIZE="2",
    MASTER_ADDR="127.0.0.1",
    MASTER_PORT=str(JOB["port"]),
    **JOB["environment"],
)
step = RunLog.step


def stopped(log: RunLog, done: int, *values: Any) -> None:
    step(log, done, *values)
    when, rank, what = JOB["stop"] or (None, None, None)
    if done == when and rank in (None, JOB["rank"]):
        if what == "death":
            os._exit(9)
        os.kill(os.getpid(), signal.Signals[what])


RunLog.step = stopped  # type: ignore[method-assign]
run = getattr(import_module(f"sweet.training.{JOB['verb']}"), JOB["verb"])
try:
    run(*JOB["arguments"], resume=JOB["resume"], quiet=True)
except UserError as problem:
    print(f"error: {problem}", file=sys.stderr)
    os._exit(problem.code)
except interrupts.Interrupted:
    os._exit(interrupts.exit_code())
