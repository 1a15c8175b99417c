"""A bench in a process of its own, to be killed. Started by ``runpy`` with JOB = {protocol, out, workers, cache}."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from sweet.bench import schedule
from sweet.bench.run import run

JOB: dict[str, Any] = globals()["JOB"]
os.environ |= {"SWEET_CACHE": JOB["cache"]} if "cache" in JOB else {}
fork = multiprocessing.get_context("fork")  # this process has torch already
schedule.multiprocessing.get_context = lambda _: fork  # type: ignore[attr-defined]
schedule.cores = lambda: 1
run(JOB["protocol"], "tiny", out=JOB["out"], workers=JOB["workers"], device="cpu", quiet=True)
