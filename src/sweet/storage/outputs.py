"""Where a verb may write: an empty place, a run to resume, or one that the user gives up with --overwrite."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweet.errors import UserError
from sweet.files import cache_folder

from . import overwrite as replacement
from .layout import claim
from .ownership import MARKER, Marker, entries, foreign, in_the_way, sweep, written

DAY = 24 * 3600.0
LOCK = f"{MARKER}.lock"  # a file of its own: some versions of filelock empty or remove what they lock
PATIENCE = 10.0  # seconds for the children of a killed process to end, and for another rank to put folders in place
SHOWN = 5  # names in a message
TRAINING = ".training"  # in a folder that a method which trains has not finished


@contextmanager
def output_folder(out: Path, *, resume: bool = False, overwrite: bool = False, run: bool = False) -> Iterator[None]:
    """Guard the work that fills ``out``: UserError when it holds something, unless resumed or overwritten.

    One process at a time has the folder. What is overwritten stays aside until the work is done, and comes back where
    the work fails; after a process that was killed the next start of the same folder brings it back, or with
    ``resume`` goes on. ``run``: the work is a training run, whose file names are known.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    # Of several processes (torchrun), the first one decides; its exit ends the others.
    if os.environ.get("RANK", "0") != "0":
        _wait_for_the_first(out, resume)
        yield
        return
    _check(out, resume=resume, overwrite=overwrite)
    made = _make(out)
    try:
        with _locked(out):
            yield from _guarded(out, resume=resume, overwrite=overwrite, run=run)
    finally:
        with suppress(OSError):  # nothing was written: leave nothing behind
            for folder in made:
                folder.rmdir()


def _guarded(out: Path, *, resume: bool, overwrite: bool, run: bool) -> Iterator[None]:
    """The work, alone in the folder."""
    replacement.settle(out, resume=resume)
    before = foreign(out)
    if before is not None:
        sweep(out)
    with suppress(OSError):
        sweep(cache_folder(), older=DAY)
    _check(out, resume=resume, overwrite=overwrite)
    if before is None:
        before = [f"{path.name}/" if path.is_dir() else path.name for path in entries(out)]
    Marker(pid=os.getpid(), host=socket.gethostname(), files=None if run else ()).write(out)
    if overwrite and entries(out):
        replacement.begin(out)
        before = []
    try:
        yield
        replacement.finish(out)
    except BaseException as problem:
        _put_back(out, quiet=isinstance(problem, UserError | OSError))  # one line is all
        raise
    finally:
        with suppress(OSError):  # a full disk; the process id in it is of nobody then
            Marker(files=None if run else written(out, before)).write(out)


def _put_back(out: Path, *, quiet: bool) -> None:
    if not (out / replacement.OLD).is_dir():
        return
    try:
        replacement.put_back(out)
    except OSError as problem:
        print(
            f"note: the old result lies in {out / replacement.OLD} ({problem.strerror}); the next start with "
            f"--out {out} puts it back",
            file=sys.stderr,
        )
        return
    if (out / replacement.NEW).is_dir() and not quiet:
        print(f"note: {out} holds the old result again; --resume continues the new one", file=sys.stderr)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold a folder. The system frees it when the process ends, however it ends. Raises UserError naming the owner."""
    from filelock import FileLock, Timeout

    owner = Marker.of(out)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0 if owner is None or _lives(owner) else PATIENCE)
    except Timeout:
        owner = Marker.of(out) or Marker()
        who = f"process {owner.pid} on {owner.host}" if owner.pid else "another process"
        raise UserError(f"--out {out}: {who} is writing to it") from None
    try:
        yield
    finally:
        with suppress(OSError):
            if {path.name for path in out.iterdir()} <= {MARKER, LOCK}:  # nothing was written
                (out / MARKER).unlink(missing_ok=True)
            (out / LOCK).unlink(missing_ok=True)
        lock.release()


def _lives(owner: Marker) -> bool:
    """Whether the process may still be there; of another machine nobody knows."""
    if owner.pid is None or owner.host != socket.gethostname():
        return True
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _check(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse what may not be written to. Writes nothing."""
    for place in (out, *out.parents):
        if place.is_symlink() and not place.exists():
            raise UserError(f"--out {out}: {place} is a link to {os.readlink(place)}, which does not exist")
    for parent in out.absolute().parents:
        if parent.exists() and not parent.is_dir():
            raise UserError(f"--out {out}: {parent} is not a folder")
    if replacement.unsettled(out):
        return  # looked at again once that is settled
    claim(out, resume=resume, overwrite=overwrite)
    if overwrite and entries(out):
        _check_replaceable(out)
    if resume and (names := in_the_way(out)):
        raise UserError(
            f"--resume: --out {out} holds no run, and what sweet did not write would be overwritten: {_some(names)}; "
            "name another folder"
        )


def _make(out: Path) -> list[Path]:
    """Make a folder and those around it; returns what was made, the innermost first."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    return missing


def _wait_for_the_first(out: Path, resume: bool) -> None:
    """A run that is resumed may have to be put in place first, by the first process."""
    until = time.monotonic() + PATIENCE
    while resume and (out / replacement.NEW).is_dir() and time.monotonic() < until:
        time.sleep(0.05)


@contextmanager
def loss_curve(out: Path) -> Iterator[Path]:
    """A folder for the loss curve of a short run; it goes to ``out`` in the end, when that is written whole."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        curve = Path(folder) / "metrics.jsonl"
        if curve.is_file():
            shutil.copyfile(curve, out / curve.name)


@contextmanager
def training_folder(out: Path) -> Iterator[Path]:
    """A folder inside ``out`` for the checkpoints of a method that trains; its loss curve goes to ``out`` in the end.

    It stays where the work ends early, so that ``--resume`` goes on; an ``out`` that holds nothing is removed.
    """
    place, fresh = out / TRAINING, not out.exists()
    try:
        yield place
    except BaseException:
        if not (place / "checkpoints").is_dir():
            shutil.rmtree(place, ignore_errors=True)
            if fresh and out.is_dir() and not any(out.iterdir()):
                out.rmdir()
        raise
    curve = place / "metrics.jsonl"
    if curve.is_file():
        shutil.copyfile(curve, out / curve.name)
    shutil.rmtree(place, ignore_errors=True)


def check_output_file(out: Path, *, overwrite: bool, option: str = "--out") -> None:
    """UserError when a file to be written exists, or its folder does not."""
    if out.exists() and not out.is_file():
        raise UserError(f"{option} {out}: is {'a folder' if out.is_dir() else 'a device'}, not a file")
    if out.exists() and not overwrite:
        raise UserError(f"{option} {out}: the file exists (--overwrite replaces it)")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{option} {out}: no such folder {out.parent}")
    if not os.access(out.absolute().parent, os.W_OK):
        raise UserError(f"{option} {out}: the folder {out.parent} may not be written to")


def _check_replaceable(out: Path) -> None:
    """A slip of the finger must not delete a home folder or somebody's photographs."""
    place = out.resolve()
    if any(Path(keep).resolve().is_relative_to(place) for keep in (Path.cwd(), Path.home())):
        raise UserError(f"--overwrite: --out {out} contains the current or the home folder")
    names = None if out.is_symlink() else foreign(out)
    if names is None:
        raise UserError(f"--overwrite: --out {out} was not written by sweet; delete it yourself if you mean it")
    if names:
        raise UserError(
            f"--overwrite: --out {out} holds what sweet did not write: {_some(names)}; move or delete it yourself"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
