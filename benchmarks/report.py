"""How a benchmark ends: its result on the screen and, with --json, in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sweet.training.run_folder import environment


def report(result: Mapping[str, object], path: Path | None) -> None:
    """Print ``result`` and the machine that it was measured on as JSON, and write it to ``path``, if there is one."""
    text = json.dumps({**result, "environment": environment()}, indent=2)
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
