"""Verbs in this process, judged: right, or one line and exit code 2, in bounded time and memory."""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer

from sweet.cli import app
from sweet.files import write_json
from sweet.version import VERSION

TINY = Path(__file__).parents[2] / "tests" / "tiny.yaml"
COMMAND = typer.main.get_command(app)
SECONDS, MEGABYTES = 5.0, 1024  # what one verb may take: CPU seconds, growth of the process's peak
SCENES = "shapes:n=64,size=16"


def options(name: str, **numbers: int) -> argparse.Namespace:
    """The command line: ``--KEY N`` for each of ``numbers``, which are defaults, and ``--out``."""
    parser = argparse.ArgumentParser()
    for key, default in numbers.items():
        parser.add_argument(f"--{key}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=Path(f"results/trust/{name}.json"))
    return parser.parse_args()


class Slow(BaseException):
    """A verb took too long."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises Slow after so many CPU seconds."""

    def ring(*_: object) -> None:
        raise Slow

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def verdict(words: Sequence[str], seconds: float = SECONDS, *, printed: io.StringIO | None = None) -> str:
    """``right`` for exit code 0, ``line`` for one line and exit code 2, else what went wrong.

    ``printed`` takes what the verb prints.
    """
    before = peak_mb()
    code, problem, said = 0, "", io.StringIO()
    try:
        with at_most(seconds), redirect_stdout(printed or io.StringIO()), redirect_stderr(said):
            COMMAND.main(list(words), prog_name="sweet")
    except Slow:
        return f"slow: more than {seconds:g} s"
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as other:  # a traceback
        code, problem = 1, f"{other!r:.300}"
    if peak_mb() > before + MEGABYTES:
        return f"memory: {peak_mb() - before:.0f} MB"
    if code == 0:
        return "right"
    lines = said.getvalue().strip().splitlines()
    if code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 1000:
        return "line"
    return f"wrong: exit code {code}, {len(lines)} lines, {problem}"


@dataclass
class Tally:
    """Counts of verdicts, and the cases that are neither right nor one line."""

    began: float = field(default_factory=time.process_time)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, str]] = field(default_factory=list)

    def add(self, case: str, verb: str, found: str, *, refused: bool = False) -> None:
        """``refused``: the case is damage that the verb has to refuse."""
        if found == "right" and refused:
            found = "wrong: accepted"
        self.counts[f"{verb}: {found.partition(':')[0]}"] += 1
        if found not in ("right", "line"):
            self.wrong.append({"case": case, "verb": verb, "verdict": found})

    def write(self, path: Path, **more: Any) -> None:
        values = {
            "sweet": VERSION,
            **more,
            "verdicts": dict(sorted(self.counts.items())),
            "wrong": self.wrong,
            "cpu_seconds": round(time.process_time() - self.began, 1),
            "peak_mb": round(peak_mb()),
        }
        write_json(path, values)
        print(json.dumps({**values, "wrong": self.wrong[:20]}, indent=1))
