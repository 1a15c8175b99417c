"""How a benchmark measures: contestants that take turns, medians of ratios, peaks of memory (Linux); how it ends."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from sweet.training.run_folder import environment

Step = Callable[[int], float]  # does the work of a round; returns its seconds


def options(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """``--rounds`` and ``--json``, to which a benchmark adds its own."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path)
    return parser


def in_turns(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, taking turns; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name in list(steps) if number % 2 else reversed(list(steps)):
            seconds = steps[name](number % 4)
            if number:
                times[name].append(seconds)
    return times


def timed(run: Callable[[int], object]) -> Step:
    """CPU seconds of this process, which another one's load changes little; on a GPU seconds until it is done."""

    def step(number: int) -> float:
        cuda = torch.cuda.is_available()
        clock = time.perf_counter if cuda else time.process_time
        began = clock()
        run(number)
        if cuda:
            torch.cuda.synchronize()
        return clock() - began

    return step


def ratio(one: Sequence[float], other: Sequence[float], digits: int = 3) -> float:
    """Median over rounds of what ``one`` took over what ``other`` did."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), digits)


def medians(times: Mapping[str, Sequence[float]], digits: int = 3) -> dict[str, float]:
    """Of each, over rounds."""
    return {name: round(statistics.median(values), digits) for name, values in times.items()}


def peak_mb(run: Callable[[], object]) -> float:
    """:func:`host_peak_mb`; where there is a GPU the peak of the device."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() / 1e6
    return host_peak_mb(run)


def host_peak_mb(run: Callable[[], object]) -> float:
    """Peak memory of this process above what it was before, in MB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory_mb("VmRSS")
    run()
    return memory_mb("VmHWM") - before


def memory_mb(key: str, pid: int | str = "self") -> float:
    """``VmRSS``, the memory of a process now, or ``VmHWM``, its peak since the last reset."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) / 1e3


def report(result: Mapping[str, object], path: Path | None) -> None:
    """Print ``result`` and the machine that it was measured on as JSON, and write it to ``path``, if there is one."""
    text = json.dumps({**result, "environment": environment()}, indent=2)
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
