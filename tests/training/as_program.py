"""The program in a process of its own: ``runpy`` with the globals JOB = {words, errors: where its stderr goes}."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sweet.__main__ import main

JOB: dict[str, Any] = globals()["JOB"]
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
errors = os.open(JOB["errors"], os.O_WRONLY | os.O_CREAT)
for stream in (1, 2):
    os.dup2(errors, stream)
sys.argv = ["sweet", *map(str, JOB["words"])]
main()
