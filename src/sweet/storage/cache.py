"""What lies in the cache folder: conversions, sources and cells of a bench, decoded images; all can be made again."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sweet.errors import UserError
from sweet.files import cache_folder

KINDS = {
    "converted": "checkpoints of others as templates",
    "sources": "sources that a bench learned",
    "starts": "initial weights of a bench",
    "cells": "unfinished cells of a bench",
    "data": "decoded images",
}


@dataclass(frozen=True)
class Entry:
    """A file or folder of the cache."""

    kind: str
    path: Path
    size: int
    used: float

    def row(self) -> dict[str, object]:
        """For a table."""
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.used))
        return {"kind": self.kind, "name": self.path.name, "MB": round(self.size / 1e6, 1), "used": day}


def entries(kind: str | None = None) -> list[Entry]:
    """Everything in the cache, or what is of one kind; names that start with a dot are being written."""
    found = []
    for name in [kind] if kind else KINDS:
        place = cache_folder() / name
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if not path.name.startswith("."):
                with suppress(OSError):  # another process may take it away
                    found.append(Entry(name, path, _size(path), path.stat().st_mtime))
    return found


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder that are still there when they are looked at."""
    names = (os.path.join(place, name) for place, _, files in os.walk(path) for name in files)
    total = 0
    for name in names if path.is_dir() else (path,):
        with suppress(OSError):
            total += os.stat(name).st_size
    return total


def listing() -> dict[str, object]:
    """What ``sweet cache list`` shows."""
    found = entries()
    total = round(sum(entry.size for entry in found) / 1e6, 1)
    return {"folder": str(cache_folder()), "MB": total, "entries": [entry.row() for entry in found]}


def clear(names: list[str], *, kind: str | None = None) -> dict[str, object]:
    """Remove the entries of those names, or all where none is named, of a kind or of ``all`` kinds.

    Without a kind, names are of all and no name is of conversions. Raises UserError for an unknown kind or name; then
    nothing is removed.
    """
    kind = kind or ("all" if names else "converted")
    if kind != "all" and kind not in KINDS:
        raise UserError(f"--kind {kind}: expected one of {', '.join(KINDS)} or all")
    found = entries(None if kind == "all" else kind)
    known = {entry.path.name for entry in found}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{unknown[0]}: not in the cache {cache_folder()}; sweet cache list shows what is")
    gone = [entry for entry in found if not names or entry.path.name in names]
    for entry in gone:
        shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink(missing_ok=True)
    return {"removed": len(gone), "MB": round(sum(entry.size for entry in gone) / 1e6, 1)}
