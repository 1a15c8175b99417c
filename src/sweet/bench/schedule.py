"""Jobs side by side in worker processes: each starts as soon as what it needs is there, and may be cut short."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sweet.console import lines_about

POLL = 2.0  # seconds between looks at a lock that somebody else holds


@dataclass(frozen=True)
class Job:
    """``call(*args)``, once the jobs named by ``needs`` are done; nobody else may hold ``lock`` meanwhile.

    ``flops`` is an estimate, for the time that is left. ``done()``: whether somebody else has done it meanwhile.
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

    ``keep(job, result)`` takes a result as it comes and returns a line about it for ``note``. A job that raises is
    noted as failed, and so are those that need it; the others go on.
    """
    schedule = _Schedule(jobs, keep, note, workers, until)
    try:
        while not schedule.late() or schedule.running:
            schedule.submit_ready()
            if schedule.running:
                schedule.collect()
            elif schedule.next_ready() is None:
                break
            else:
                time.sleep(POLL)  # another bench holds the locks
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():  # a training saves and ends; Ctrl-C has reached it already
            worker.terminate()
        raise
    finally:
        schedule.pool.shutdown(cancel_futures=True)
    schedule.outcome.left += schedule.waiting
    return schedule.outcome


class _Schedule:
    """Jobs that wait and jobs that run, during one call of :func:`work`."""

    def __init__(
        self,
        jobs: list[Job],
        keep: Callable[[Job, Any], str],
        note: Callable[[str], None],
        workers: int,
        until: float | None,
    ) -> None:
        self.keep, self.note, self.workers, self.until = keep, note, workers, until
        self.waiting = {job.name: job for job in jobs}
        self.running: dict[Future[Any], Job] = {}
        self.outcome = Outcome()
        self.count, self.flops = len(jobs), sum(job.flops for job in jobs)
        self.finished, self.flops_done, self.began = 0, 0.0, time.monotonic()
        self.pool = _pool(workers)

    def late(self) -> bool:
        """Whether the time is up."""
        return self.until is not None and time.time() >= self.until

    def next_ready(self, *, free: bool = False) -> Job | None:
        """The first waiting job whose needs are done; ``free``: whose lock nobody holds."""
        ahead = {*self.waiting, *self.outcome.left, *(job.name for job in self.running.values())}
        ready = (job for job in self.waiting.values() if not ahead.intersection(job.needs))
        return next((job for job in ready if not (free and held(job.lock))), None)

    def submit_ready(self) -> None:
        """Give jobs to free workers; what another bench has done meanwhile is dropped."""
        while len(self.running) < self.workers and not self.late():
            job = self.next_ready(free=True)
            if job is None:
                return
            del self.waiting[job.name]
            if not job.done():
                self.running[self.pool.submit(_guarded, replace(job, done=bool), self.until)] = job

    def collect(self) -> None:
        """Wait for results, for :data:`POLL` seconds at most, and take them."""
        done = wait(self.running, timeout=POLL, return_when=FIRST_COMPLETED).done
        if any([self.take(self.running.pop(future), future) for future in done]):
            for job in self.running.values():
                self.fail(job, "a process beside it died")
            self.running.clear()
            self.pool.shutdown(wait=False)
            self.pool = _pool(self.workers)

    def take(self, job: Job, future: Future[Any]) -> bool:
        """Keep the result of a job, or note why there is none. Returns whether its process died, and the pool too."""
        try:
            line = self.keep(job, future.result())
        except Busy:
            self.waiting[job.name] = job
        except OutOfTime:
            self.outcome.left.append(job.name)
        except BrokenProcessPool:
            self.fail(job, "its process died (out of memory?)")
            return True
        except Exception as problem:
            self.fail(job, f"{type(problem).__name__}: {problem}")
        else:
            self.finished, self.flops_done = self.finished + 1, self.flops_done + job.flops
            seconds = (time.monotonic() - self.began) / self.flops_done if self.flops_done else 0.0  # per FLOP
            left = (self.flops - self.flops_done) * seconds / 60
            self.note(f"[{self.finished}/{self.count}] {line}  ETA {left:.0f} min")
        return False

    def fail(self, job: Job, why: str) -> None:
        """Note a failure, and how many jobs need this one: they fail with it."""
        before = len(self.outcome.failed)
        self._fail_with_others(job, why)
        others = len(self.outcome.failed) - before - 1
        self.note(f"FAILED {job.name}: {why}" + (f"; {others} that need it are left out" if others else ""))

    def _fail_with_others(self, job: Job, why: str) -> None:
        self.outcome.failed[job.name] = why
        for other in [other for other in self.waiting.values() if job.name in other.needs]:
            if self.waiting.pop(other.name, None):
                self._fail_with_others(other, f"{job.name} failed")


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
    with holding(job.lock), lines_about(job.name):
        return limited(until, job.call, *job.args)


@contextmanager
def holding(lock: Path) -> Iterator[None]:
    """Hold a lock file, which names the owner's process. The system frees it when that ends, however it ends: there
    are no stale locks. Raises Busy while another process holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        holder = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise Busy(str(lock)) from None
    with holder:
        with suppress(OSError):  # Windows lets nobody write to a locked file
            lock.write_text(f"{os.getpid()}\n")
        yield


def held(lock: Path) -> bool:
    """Whether another process holds a lock file right now."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def limited(until: float | None, call: Callable[..., Any], *args: Any) -> Any:
    """``call(*args)``, to which the end of the time is what Ctrl-C is: a training finishes its step and saves a
    checkpoint. Raises OutOfTime then. For the main thread."""
    if until is None:
        return call(*args)
    armed, rang = threading.Event(), threading.Event()

    def interrupt(*_: Any) -> None:
        if armed.is_set() or not rang.is_set():  # after the work the alarm does no harm, Ctrl-C is Ctrl-C
            raise KeyboardInterrupt

    def ring() -> None:
        rang.set()
        os.kill(os.getpid(), signal.SIGINT)

    alarm = threading.Timer(max(0.0, until - time.time()), ring)
    handler_before = signal.signal(signal.SIGINT, interrupt)
    try:
        try:
            armed.set()
            alarm.start()  # rings at once where the time is up
            return call(*args)
        finally:
            armed.clear()
    except KeyboardInterrupt:
        if rang.is_set():
            raise OutOfTime from None
        raise
    finally:
        alarm.cancel()
        if alarm.is_alive():
            alarm.join()
        signal.signal(signal.SIGINT, handler_before)
