"""What a verb shows: progress and, at its end, one table for people or one JSON object for machines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sweet.errors import printable
from sweet.files import dotted

MOST_ROWS, LOWEST = 20, 10  # numbers of one table on a screen; how many of a longer one
LONG = 60  # characters: a list with such an item is shown a line each

EVERY = 10.0  # seconds between two lines of progress
T = TypeVar("T")


def show(work: Callable[[], Any], *, as_json: bool) -> Any:
    """Do the work, print its result and return it; with ``as_json`` nothing else reaches stdout."""
    if os.environ.get("RANK", "0") != "0":  # of several processes (torchrun), the first one speaks
        return work()
    if not as_json:
        result = work()
        _print_table(result)
        return result
    with redirect_stdout(sys.stderr):
        result = work()
    # strict JSON has no NaN: null stands for it
    print(json.dumps(json.loads(json.dumps(result, default=str), parse_constant=lambda _: None)))
    return result


def _print_table(result: Any) -> None:
    """A list of mappings as one table with headings; a mapping as keys and values, its tables and sentences below."""
    if isinstance(result, list):
        if not result:
            print("none")
            return
        _print_rows(result, list(dict.fromkeys(name for row in result for name in row)), headings=True)
        return
    leaves = dotted(for_people(result)).items()
    below = {key: value for key, value in leaves if _is_table(value) or _are_sentences(value)}
    _print_rows([{"key": k, "value": v} for k, v in leaves if k not in below], ["key", "value"], headings=False)
    for key, value in below.items():
        print(f"\n{printable(key)}")
        if _is_table(value):
            _print_table(value)
        else:
            print("\n".join(map(printable, value)))


def for_people(result: Mapping[str, Any]) -> dict[str, Any]:
    """What fits on a screen: of a long table of numbers the lowest, of a matrix its size; ``--json`` has all."""
    shown: dict[str, Any] = {}
    for key, value in result.items():
        if isinstance(value, Mapping):
            value = for_people(value)
            if len(value) > MOST_ROWS and all(isinstance(number, int | float) for number in value.values()):
                lowest = sorted(value, key=lambda name: value[name])[:LOWEST]
                rest = f"up to {_text(max(value.values()))}; see --json"
                value = {name: value[name] for name in lowest} | {f"... {len(value) - LOWEST} more": rest}
        elif _is_matrix(value):
            value = f"{len(value)} x {len(value[0])}, see --json"
        elif key == "precision" and value == "no":  # accelerate's word
            value = "fp32"
        shown[key] = value
    return shown


def _print_rows(rows: list[Mapping[str, Any]], columns: list[str], *, headings: bool) -> None:
    """Folded to the width of a terminal; for a pipe or a file, a line each."""
    lines = [[_text(row.get(name)) for name in columns] for row in rows]
    names = [_text(name) for name in columns]
    if not sys.stdout.isatty():
        lines = [names, *lines] if headings else lines
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=headings)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))  # a Text, because square brackets in a plain string would be read as markup
    Console().print(table)


def _is_matrix(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(row, list) for row in value):
        return False
    return all(isinstance(cell, int | float) for row in value for cell in row)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _are_sentences(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, str) and len(item) > LONG for item in value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:,.0f}" if 9_999.5 <= abs(value) < 1e9 else f"{value:.4g}"
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        value = f"{value:,}"
    elif isinstance(value, list | tuple):
        value = ", ".join(map(_text, value)) or "none"
    elif value is None:
        value = "-"
    return printable(str(value))


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is: ``done`` of ``total`` steps or images, and ``values`` that are known by now."""

    what: str
    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)


Listener = Callable[[Progress], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_bar: ContextVar[Any] = ContextVar("bar", default=None)
_about: ContextVar[str] = ContextVar("about", default="")


@contextmanager
def listening_to_progress(listener: Listener | None) -> Iterator[None]:
    """Inside the block progress goes to ``listener`` instead of the terminal; None changes nothing."""
    token = _listener.set(listener or _listener.get())
    try:
        yield
    finally:
        _listener.reset(token)


def report(what: str, done: int, total: int, values: Mapping[str, float] | None = None) -> bool:
    """Give a :class:`Progress` to the listener; whether there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(what, done, total, values or {}))
    return listener is not None


def listened_to() -> bool:
    """Whether a listener takes what the terminal would show."""
    return _listener.get() is not None


def open_bar(*, stays: bool = False) -> Any:
    """A live display, in which :func:`progress` has its lines until :func:`close_bar`; None where there is no terminal.

    ``stays``: it is still there to read when it is closed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    if not sys.stderr.isatty() or listened_to():
        return None
    status = TextColumn("{task.fields[status]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), status)
    bar = Bar(*columns, console=Console(file=sys.stderr), transient=not stays)
    bar.start()
    _bar.set(bar)
    return bar


def close_bar(bar: Any) -> None:
    """End what :func:`open_bar` began."""
    if bar is not None:
        bar.stop()
        _bar.set(None)


def progress(batches: Iterable[T], total: int, batch: int, what: str) -> Iterator[T]:
    """The batches of ``total`` images, ``batch`` at a time, with a bar and ETA on a terminal.

    Elsewhere a line of standard error every ten seconds, none for work that takes less.
    """
    outer = _bar.get()
    bar = outer or open_bar()
    task = None if bar is None else bar.add_task(what, total=total, status="")
    began = said = time.monotonic()
    try:
        for number, value in enumerate(batches, 1):
            yield value
            now, done = time.monotonic(), min(number * batch, total)
            if bar is not None:
                bar.update(task, completed=done)
            elif not report(what, done, total) and now - said >= EVERY and done < total:
                left = clock((now - began) / done * (total - done))
                say(f"{what}: {done}/{total} images  ETA {left}")
                said = now
    finally:
        if bar is not None:
            bar.remove_task(task)
        if outer is None:
            close_bar(bar)


def clock(seconds: float) -> str:
    """``1:05`` of 65 seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def warn(text: str) -> None:
    """One line on stderr, of the first of several processes; a quiet run says it too."""
    if os.environ.get("RANK", "0") == "0":
        say(f"warning: {' '.join(text.split())}")


def say(text: str) -> None:
    """A line on stderr. Names of files and classes may stand in it: no control character reaches the terminal."""
    print(printable(_about.get() + text), file=sys.stderr, flush=True)


@contextmanager
def lines_about(what: str) -> Iterator[None]:
    """Inside the block every line of :func:`say` begins with ``what``: several processes share a terminal."""
    token = _about.set(f"{what}: ")
    try:
        yield
    finally:
        _about.reset(token)
