"""``--overwrite``: the old result stays aside until the new one is whole, whatever ends the process in between.

All of it happens inside ``--out``, by renaming, so that every step is whole or not done at all. What lies there says
how far it came:

* ``.sweet.moving``: a move of the old result that did not end; it and what lies in place are the old result.
* ``.sweet.old``: the old result; what lies in place, and in ``.sweet.new``, is of the new one.
* ``.sweet.new`` alone: a new one that was interrupted and can be resumed; what lies in place is the old result.
* ``.sweet.dropped``: to be deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sweet.files import sync

from .ownership import MARKER, NONFINITE, entries, foreign

MOVING, OLD, NEW, DROPPED = (f"{MARKER}.{state}" for state in ("moving", "old", "new", "dropped"))
RESUMABLE = ("step-*", "checkpoints/step-*", "config.json", "*/*-*.json", NONFINITE)
"""In a folder of a run, of a family or of a bench: what of it can be gone on with."""


def unsettled(out: Path) -> bool:
    """Whether an overwriting of ``out`` did not come to its end."""
    return any((out / state).is_dir() for state in (MOVING, OLD, DROPPED))


def settle(out: Path, *, resume: bool) -> None:
    """Bring a folder to rest after a process that was killed: the old result in place.

    With ``resume`` the new one is in place, as far as it came, and the old one aside.
    """
    _drop(out)
    if (out / MOVING).is_dir():
        _unpack(out / MOVING, out)
    if (out / OLD).is_dir():
        if not resume:
            put_back(out)
            return
    elif not resume or not (out / NEW).is_dir():
        return
    else:
        _set_aside(out)
    if (out / NEW).is_dir():
        _unpack(out / NEW, out)


def begin(out: Path) -> None:
    """Put the old result aside; an unfinished new one of before is given up."""
    if (out / NEW).is_dir():
        os.replace(out / NEW, out / DROPPED)
        _drop(out)
    _set_aside(out)


def put_back(out: Path) -> None:
    """The old result in place again; what can be resumed of the new one goes to ``.sweet.new``."""
    new = entries(out)
    folders = [path for path in new if path.is_dir()]
    begun = any(next(folder.glob(pattern), None) for folder in folders for pattern in RESUMABLE)
    if (out / NEW).is_dir() or (out / NONFINITE).is_file() or begun:
        _move(new, out / NEW)
    else:
        strange = {name.partition("/")[0] for name in foreign(out) or ()}
        _move([path for path in new if path.name not in strange], out / DROPPED)
        _drop(out)
    os.replace(out / OLD, out / MOVING)
    _unpack(out / MOVING, out)


def after_failure(out: Path) -> Path:
    """Where the folder ``out``, which is written now alone or as part of another one, will lie if the work fails."""
    whole = next((place for place in (out, *out.parents) if (place / OLD).is_dir()), None)
    return out if whole is None else whole / NEW / out.relative_to(whole)


def finish(out: Path) -> None:
    """The new result is whole: drop the old one."""
    if (out / OLD).is_dir():
        os.replace(out / OLD, out / DROPPED)
        sync(out)
        _drop(out)


def _set_aside(out: Path) -> None:
    _move(entries(out), out / MOVING)
    os.replace(out / MOVING, out / OLD)
    sync(out)


def _unpack(folder: Path, out: Path) -> None:
    _move(sorted(folder.iterdir()), out)
    folder.rmdir()


def _move(paths: Sequence[Path], to: Path) -> None:
    to.mkdir(exist_ok=True)
    for path in paths:
        os.replace(path, to / path.name)
    sync(to)


def _drop(out: Path) -> None:
    shutil.rmtree(out / DROPPED, ignore_errors=True)
