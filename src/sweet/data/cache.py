"""The cache folder: what can be made again from the data, but not quickly."""

from __future__ import annotations

import os
from pathlib import Path


def cache_file(name: str) -> Path:
    """A path in ``$SWEET_CACHE``, by default the user's ``~/.cache/sweet``; the folder need not exist yet."""
    home = os.environ.get("SWEET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sweet"
    return Path(home).expanduser() / "data" / name
