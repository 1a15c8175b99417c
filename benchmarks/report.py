"""How a benchmark ends: its result on the screen and, with --json, in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweet.training.run_folder import environment


def report(result: dict[str, Any], path: Path | None) -> None:
    result = {**result, "environment": environment()}
    print(json.dumps(result, indent=2))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
