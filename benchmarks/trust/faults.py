"""A fault or a kill at every file call of a save and of an overwrite: the previous result is whole, and one line.

    python benchmarks/trust/faults.py [--step 1] [--out results/trust/faults.json]

Each trial is a forked process in which the n-th call that changes the disk fails (ENOSPC, EIO, EROFS in turn) or ends
the process; ``--step`` tries every so many calls only. ``save``: a pre-training of four steps that saves after each
second one; then ``--resume`` must come to the same bytes as an unbroken run. ``overwrite``: ``--overwrite`` on a
finished run; the next start must find the old result or the new one, whole.
"""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import TINY, Tally, options, verdict

from sweet.files import check_sums, sha256

CALLS = ("replace", "mkdir", "rmdir", "fsync", "unlink", "rename")
CODES = (errno.ENOSPC, errno.EIO, errno.EROFS)
KILLED = 9
RUN = [str(TINY), "max_steps=4", "checkpoint_every=2", "-q"]


def fail_at(number: int, kill: bool) -> Callable[[], int]:
    """From now on count the calls of this process that change the disk; the ``number``-th does not come back.

    Returns how many there were.
    """
    count = 0

    def reached(path: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            if kill:
                os._exit(KILLED)
            code = CODES[number % len(CODES)]
            raise OSError(code, os.strerror(code), path if isinstance(path, str | os.PathLike) else None)

    def wrap(module: Any, name: str, changes: Callable[..., bool]) -> None:
        call = getattr(module, name)

        def one(*args: Any, **options: Any) -> Any:
            if changes(*args, **options):
                reached(args[0] if args else None)
            return call(*args, **options)

        setattr(module, name, one)

    def always(*_: Any, **__: Any) -> bool:
        return True

    def writes(_: Any, mode: str = "r", *__: Any, **___: Any) -> bool:
        return isinstance(mode, str) and any(letter in mode for letter in "wax+")

    for name in CALLS:
        wrap(os, name, always)
    wrap(tempfile, "mkstemp", always)
    wrap(builtins, "open", writes)
    wrap(Path, "open", writes)
    wrap(Path, "write_text", always)
    import safetensors.torch

    wrap(safetensors.torch, "save_file", always)
    return lambda: count


def forked(words: list[str], number: int, kill: bool) -> tuple[str, bool]:
    """The verdict of a verb that meets a fault, and whether it came so far."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        calls = fail_at(number, kill)
        found = verdict(words)
        os.write(write, f"{int(calls() >= number)}{found}"[:2000].encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return (said[1:], said[0] == "1") if said else ("line", True)  # killed: it said nothing


def bytes_of(out: Path) -> str:
    return sha256(out / "template.safetensors") if (out / "template.safetensors").is_file() else ""


def whole(out: Path) -> bool:
    sums = check_sums(out)
    return bool(sums) and all(sums.values())


def save(place: Path, tally: Tally, kill: bool, step: int) -> int:
    reference = place / "reference"
    if not reference.is_dir():
        assert verdict(["pretrain", *RUN, "--out", str(reference)], 300) == "right"
    number = 1
    while True:
        out = place / "run"
        shutil.rmtree(out, ignore_errors=True)
        found, reached = forked(["pretrain", *RUN, "--out", str(out)], number, kill)
        if not reached:
            return number - 1
        case = f"save {'kill' if kill else 'fault'} {number}"
        tally.add(case, "pretrain", found)
        again = verdict(["pretrain", *RUN, "--out", str(out), "--resume"])
        same = again == "right" and bytes_of(out) == bytes_of(reference)
        left = [path.name for path in out.rglob(".*") if path.name != ".sweet"]
        tally.add(case, "resume", "right" if same and not left else f"wrong: {again}, {left}")
        number += step


def overwrite(place: Path, tally: Tally, kill: bool, step: int, verb: list[str], name: str) -> int:
    old = place / "old"
    if not old.is_dir():
        assert verdict(["pretrain", *RUN, "--out", str(old)], 300) == "right"
    assert verdict([*verb, "--out", str(place / name)], 300) == "right"
    new, number = bytes_of(place / name) or bytes_of(old), 1
    shutil.rmtree(place / name)
    while True:
        out = place / "run"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(old, out)
        words = [*verb, "--out", str(out)]
        found, reached = forked([*words, "--overwrite"], number, kill)
        if not reached:
            return number - 1
        case = f"{name} {'kill' if kill else 'fault'} {number}"
        tally.add(case, name, found)
        tally.add(case, "next start", verdict(words), refused=True)  # settles, and says that it is not empty
        kept = bytes_of(out) in (bytes_of(old), new) or (out / "model.safetensors").is_file()
        tally.add(case, "result", "right" if kept and whole(out) else f"wrong: {sorted(os.listdir(out))}")
        number += step


def main() -> None:
    given = options("faults", step=1)
    tally, calls = Tally(), {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = place / "source"
        assert verdict(["pretrain", *RUN, "--out", str(source)], 300) == "right"
        init = ["init", str(source), "--depth", "1", "--heads", "1", "--device", "cpu"]
        for kill in (False, True):
            way = "kill" if kill else "fault"
            calls[f"init --overwrite, {way}"] = overwrite(place, tally, kill, given.step, init, "init")
            print(calls, tally.wrong[-3:], file=sys.stderr, flush=True)
            calls[f"save, {way}"] = save(place, tally, kill, given.step)
            print(calls, tally.wrong[-3:], file=sys.stderr, flush=True)
            again = ["pretrain", *RUN, "seed=1"]
            calls[f"pretrain --overwrite, {way}"] = overwrite(place, tally, kill, given.step, again, "overwrite")
            print(calls, tally.wrong[-3:], file=sys.stderr, flush=True)
    tally.write(given.out, calls=calls, every=given.step)


if __name__ == "__main__":
    main()
