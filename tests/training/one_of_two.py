"""One of several processes of a run, as torchrun would start it, over gloo.

Started by ``runpy`` with the globals JOB = {rank, port, verb, arguments, resume, stop}: at step ``stop`` it crashes.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from sweet.training.log import RunLog

JOB: dict[str, Any] = globals()["JOB"]
os.environ.update(
    RANK=str(JOB["rank"]),
    LOCAL_RANK=str(JOB["rank"]),
    WORLD_SIZE="2",
    LOCAL_WORLD_SIZE="2",
    MASTER_ADDR="127.0.0.1",
    MASTER_PORT=str(JOB["port"]),
)
step = RunLog.step


def stopped(log: RunLog, done: int, *values: Any) -> None:
    step(log, done, *values)
    if done == JOB["stop"]:
        os._exit(9)


RunLog.step = stopped  # type: ignore[method-assign]
run = getattr(import_module(f"sweet.training.{JOB['verb']}"), JOB["verb"])
run(*JOB["arguments"], resume=JOB["resume"], quiet=True)
