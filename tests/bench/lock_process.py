"""A process that holds a lock until it is killed. Started by ``runpy`` with LOCK."""

from __future__ import annotations

import time
from pathlib import Path

from sweet.bench.schedule import holding

LOCK: Path = globals()["LOCK"]
with holding(LOCK):
    time.sleep(600)
