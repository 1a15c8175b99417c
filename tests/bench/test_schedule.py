"""Jobs side by side: order, locks, failures, time. The processes have torch already; the jobs do next to nothing."""

from __future__ import annotations

import os
import runpy
import time
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from sweet.bench import schedule
from sweet.bench.schedule import Busy, Job, OutOfTime, held, holding, limited, work
from sweet.console import say


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "POLL", 0.05)


def do(
    jobs: list[Job], *, workers: int = 2, until: float | None = None
) -> tuple[list[str], schedule.Outcome, list[str]]:
    """What was done in which order, the outcome, what was said."""
    done: list[str] = []
    said: list[str] = []

    def keep(job: Job, result: Any) -> str:
        done.append(job.name)
        assert result == job.args[0]
        return job.name

    return done, work(jobs, keep, workers=workers, until=until, note=said.append), said


def job(name: str, tmp_path: Path, *needs: str, call: Any = str, value: Any = "x", flops: float = 1.0) -> Job:
    return Job(name, call, (value,), tmp_path / "locks" / name, flops, needs)


def test_a_job_waits_for_what_it_needs_only(tmp_path: Path) -> None:
    jobs = [
        job("late", tmp_path, "source"),
        job("free", tmp_path),
        job("source", tmp_path),
        job("last", tmp_path, "late"),
    ]
    done, outcome, said = do(jobs)
    assert set(done) == {"late", "free", "source", "last"}
    assert done.index("source") < done.index("late") < done.index("last")
    assert (outcome.left, outcome.failed) == ([], {})
    assert said[0].startswith("[1/4] ") and said[-1].endswith("ETA 0 min")
    assert do(jobs, workers=1)[0] == ["free", "source", "late", "last"]  # in their order where they can


def test_lines_of_a_worker_name_its_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule._guarded(job("source dense", tmp_path, call=say, value="step 1/2"), None)
    assert capsys.readouterr().err == "source dense: step 1/2\n"


def test_a_failure_takes_along_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    jobs = [
        job("bad", tmp_path, call=int, value="no number"),
        job("after", tmp_path, "bad"),
        job("later", tmp_path, "after"),
        job("good", tmp_path),
    ]
    done, outcome, said = do(jobs)
    assert done == ["good"] and outcome.left == []
    assert outcome.failed["bad"].startswith("ValueError: invalid literal")
    assert (outcome.failed["after"], outcome.failed["later"]) == ("bad failed", "after failed")
    (failure,) = (line for line in said if line.startswith("FAILED"))
    assert failure.endswith("; 2 that need it are left out")


def test_a_worker_that_dies_does_not_end_the_table(tmp_path: Path) -> None:
    jobs = [job("killed", tmp_path, call=os._exit, value=9), job("good", tmp_path)]
    done, outcome, _ = do(jobs, workers=1)
    assert done == ["good"] and "process died" in outcome.failed["killed"]


def test_nothing_begins_after_the_time(tmp_path: Path) -> None:
    done, outcome, _ = do([job("a", tmp_path), job("b", tmp_path, "a")], until=time.time() - 1)
    assert done == [] and sorted(outcome.left) == ["a", "b"]


def test_a_job_that_is_cut_short_is_left_with_all_that_need_it(tmp_path: Path) -> None:
    jobs = [job("long", tmp_path, call=time.sleep, value=600), job("after", tmp_path, "long")]
    began = time.monotonic()
    done, outcome, _ = do(jobs, until=time.time() + 0.5)
    assert done == [] and sorted(outcome.left) == ["after", "long"] and not outcome.failed
    assert time.monotonic() - began < 300


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path, processes: ForkServerContext) -> None:
    lock = tmp_path / "locks" / "source"
    assert not held(lock) and not lock.exists()
    with holding(lock):
        assert lock.read_text().strip() == str(os.getpid()) and held(lock)
        with pytest.raises(Busy), holding(lock):
            pass
    assert not held(lock)
    owner = holder(processes, lock)
    while not (lock.exists() and lock.read_text().strip() == str(owner.pid)):
        assert owner.is_alive()
        time.sleep(0.02)
    assert held(lock)
    owner.kill()
    owner.join()
    with holding(lock):  # nobody has to clear away after the dead
        pass


def holder(processes: ForkServerContext, lock: Path) -> Any:
    """A process that holds a lock until it is killed."""
    script = str(Path(__file__).with_name("lock_process.py"))
    process = processes.Process(target=runpy.run_path, args=(script, {"LOCK": lock}))
    process.start()
    return process


def test_what_another_bench_does_is_waited_for(tmp_path: Path, processes: ForkServerContext) -> None:
    """And the rest goes on meanwhile."""
    taken, free = job("taken", tmp_path), job("free", tmp_path)
    owner = holder(processes, taken.lock)
    while not held(taken.lock):
        time.sleep(0.02)

    done: list[str] = []

    def keep(one: Job, _: Any) -> str:
        done.append(one.name)
        if one.name == "free":
            owner.kill()
        return one.name

    work([taken, free], keep, workers=1, until=None, note=lambda _: None)
    assert done == ["free", "taken"]


def test_what_another_bench_has_done_is_not_done_again(tmp_path: Path) -> None:
    """The jobs that need it find it done."""
    first, after = job("first", tmp_path), replace(job("after", tmp_path), needs=("first",))
    kept: list[str] = []

    def keep(one: Job, _: Any) -> str:
        kept.append(one.name)
        return one.name

    outcome = work([replace(first, done=lambda: True), after], keep, workers=1, until=None, note=lambda _: None)
    assert (kept, outcome.left, outcome.failed) == (["after"], [], {})


def test_an_alarm_after_the_work_does_no_harm() -> None:
    assert limited(time.time() + 0.05, int, 3) == 3
    with pytest.raises(OutOfTime):
        limited(time.time() + 0.05, time.sleep, 600)
    for _ in range(20):  # also where the time is up before the work begins
        with pytest.raises(OutOfTime):
            limited(time.time() - 1, time.sleep, 600)
    time.sleep(0.1)
    with pytest.raises(ZeroDivisionError):
        limited(time.time() + 60, divmod, 1, 0)
