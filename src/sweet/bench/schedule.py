"""Jobs side by side in worker processes: each starts as soon as what it needs is there, and may be cut short."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

POLL = 2.0  # seconds between looks at a lock that somebody else holds


@dataclass(frozen=True)
class Job:
    """``call(*args)``, once the jobs named by ``needs`` are done; nobody else may hold ``lock`` meanwhile.

    ``flops`` is an estimate, for the time that is left. ``done()`` tells whether somebody else has done it meanwhile.
    """

    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    lock: Path
    flops: float = 0.0
    needs: tuple[str, ...] = ()
    done: Callable[[], bool] = bool  # by default not


@dataclass
class Outcome:
    """Names of the jobs that are left to do, and of those that failed with the reason."""

    left: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Busy(Exception):
    """Another process does the same."""


class OutOfTime(Exception):
    """The time is up; a training has left a checkpoint."""


def work(
    jobs: list[Job],
    keep: Callable[[Job, Any], str],
    *,
    workers: int,
    until: float | None,
    note: Callable[[str], None],
) -> Outcome:
    """Do jobs in their order, ``workers`` at a time; at ``until`` (as of time.time()) stop where each can go on.

    ``keep(job, result)`` takes a result as it comes and tells of it. A job that raises is noted, and so are those that
    need it; the others go on.
    """
    waiting, running = {job.name: job for job in jobs}, dict[Future[Any], Job]()
    outcome, total, done, began = Outcome(), sum(job.flops for job in jobs), 0.0, time.monotonic()
    finished, pool = 0, _pool(workers)

    def late() -> bool:
        return until is not None and time.time() >= until

    def ready() -> Iterator[Job]:
        ahead = {*waiting, *outcome.left, *(job.name for job in running.values())}
        return (job for job in waiting.values() if not ahead.intersection(job.needs))

    def fail(job: Job, why: str) -> None:
        outcome.failed[job.name] = why
        note(f"FAILED {job.name}: {why}")
        for other in [other for other in waiting.values() if job.name in other.needs]:
            if waiting.pop(other.name, None):
                fail(other, f"{job.name} failed")

    try:
        while not late() or running:
            while len(running) < workers and not late():
                job = next((job for job in ready() if not held(job.lock)), None)
                if job is None:
                    break
                del waiting[job.name]
                if job.done():
                    continue
                running[pool.submit(_guarded, replace(job, done=bool), until)] = job
            if not running:
                if next(ready(), None) is None:
                    break
                time.sleep(POLL)  # another bench is at it
                continue
            died = False
            for future in wait(running, timeout=POLL, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    told = keep(job, future.result())
                except Busy:
                    waiting[job.name] = job
                    continue
                except OutOfTime:
                    outcome.left.append(job.name)
                    continue
                except BrokenProcessPool:
                    died = True
                    fail(job, "its process died (out of memory?)")
                    continue
                except Exception as problem:
                    fail(job, f"{type(problem).__name__}: {problem}")
                    continue
                finished, done = finished + 1, done + job.flops
                left = (total - done) * (time.monotonic() - began) / done / 60 if done else 0.0
                note(f"[{finished}/{len(jobs)}] {told}  ETA {left:.0f} min")
            if died:  # and took its pool along
                for job in running.values():
                    fail(job, "a process beside it died")
                running.clear()
                pool.shutdown(wait=False)
                pool = _pool(workers)
    finally:
        pool.shutdown(cancel_futures=True)
    outcome.left += waiting
    return outcome


def cores() -> int:
    """Cores that this process may use, by ``taskset`` or a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool(workers: int) -> ProcessPoolExecutor:
    threads = max(1, cores() // workers)
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker, initargs=(threads,)
    )


def start_worker(threads: int) -> None:
    """Begin a worker: its share of the cores, and its end when the bench ends, even by SIGKILL."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _guarded(job: Job, until: float | None) -> Any:
    """A job in a worker: alone at its lock, and for no longer than it may."""
    with holding(job.lock):
        return limited(until, job.call, *job.args)


@contextmanager
def holding(lock: Path) -> Iterator[None]:
    """Hold a lock file, which names the owner's process. The system frees it when that ends, however it ends: there
    are no stale locks. Raises Busy while another process holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(str(lock)) from None
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield


def held(lock: Path) -> bool:
    """Whether another process holds a lock file right now."""
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def limited(until: float | None, call: Callable[..., Any], *args: Any) -> Any:
    """``call(*args)``, to which the end of the time is what Ctrl-C is: a training finishes its step and saves a
    checkpoint. Raises OutOfTime then. For the main thread."""
    if until is None:
        return call(*args)
    armed, rang = threading.Event(), threading.Event()

    def interrupt(*_: Any) -> None:
        if armed.is_set() or not rang.is_set():  # after the work a bell does no harm, Ctrl-C is Ctrl-C
            raise KeyboardInterrupt

    def ring() -> None:
        rang.set()
        os.kill(os.getpid(), signal.SIGINT)

    bell = threading.Timer(max(0.0, until - time.time()), ring)
    before = signal.signal(signal.SIGINT, interrupt)
    armed.set()
    bell.start()
    try:
        result = call(*args)
        armed.clear()
        return result
    except KeyboardInterrupt:
        if rang.is_set():
            raise OutOfTime from None
        raise
    finally:
        armed.clear()
        bell.cancel()
        bell.join()
        signal.signal(signal.SIGINT, before)
