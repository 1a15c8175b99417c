"""A bench in a process of its own, to be killed. Started by ``runpy`` with JOB = {protocol, out, workers}."""

from __future__ import annotations

import multiprocessing
from typing import Any

from sweet.bench import run, table
from sweet.bench.protocols import PROTOCOLS

JOB: dict[str, Any] = globals()["JOB"]
PROTOCOLS["tiny", "micro"] = JOB["protocol"]
fork = multiprocessing.get_context("fork")  # this process has torch already
table.multiprocessing.get_context = lambda _: fork  # type: ignore[attr-defined]
table.os.cpu_count = lambda: 1  # type: ignore[attr-defined]
run("tiny", protocol="micro", out=JOB["out"], workers=JOB["workers"], device="cpu", quiet=True)
