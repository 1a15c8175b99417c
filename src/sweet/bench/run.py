"""``sweet bench``: the open cells of a table, measured by worker processes, each result written as it comes."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweet.console import say
from sweet.files import replacing, write_json
from sweet.results.files import add_run, write_spec
from sweet.results.summary import summarise
from sweet.tasks.registry import TASKS

from .estimates import plan
from .jobs import TableJobs
from .protocol import Protocol, spec_of
from .schedule import Job, cores, work
from .sweeps import missing_sweeps


def run(
    protocol: Protocol,
    name: str,
    *,
    out: Path,
    data: str | None = None,
    transfer: list[str] | None = None,
    methods: list[str] | None = None,
    sizes: list[str] | None = None,
    seeds: int | None = None,
    workers: int | None = None,
    max_minutes: float | None = None,
    device: str = "auto",
    checkpoint: str | None = None,
    archive: Path | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """Measure what is missing of table ``name`` and return it; killed and started again, it goes on.

    ``transfer`` are NAME=SRC, where the images of the table's other sets lie; only sets that are given are measured.
    ``checkpoint`` is the folder of a pre-trained ViT, for a table that starts from one. After ``max_minutes`` all stops
    at a checkpoint. ``archive`` is a tar file of all JSON below ``out``, written anew after each result. Raises
    UserError for an unknown method and size and for missing data, before anything is written.
    """
    from sweet.models.device import resolve_device

    until = None if max_minutes is None else time.time() + 60 * max_minutes
    table = TableJobs(protocol, name, out, data, transfer, device, checkpoint)
    cells = table.choose(methods, sizes, seeds)
    table.check_inputs(cells)
    table.match_existing(cells)
    workers = workers or (min(2, cores()) if resolve_device(device).type == "cpu" else 1)
    note: Callable[[str], None] = (lambda _: None) if quiet else say
    for sweep in missing_sweeps(protocol, out):
        note(f"warning: {out} has no {sweep}: rows keep settings of their own, and another choice is refused later")
    # which folder this is, for --overwrite; what was measured where stands in each result
    write_json(out / "env.json", {"bench": name, "protocol": protocol.name, "workers": workers})
    write_spec(out, spec_of(table.protocol, name))
    failures: dict[str, str] = {}
    while True:
        missing = {cell: recipe for cell, recipe in cells.items() if not table.done(cell) and str(cell) not in failures}
        note(f"{name} ({protocol.name}): {len(missing)} of {len(cells)} cells open, {workers} workers")
        table.write_sources(cells)
        outcome = work(table.jobs(missing), Keeper(table, archive), workers=workers, until=until, note=note)
        failures |= outcome.failed
        more = table.choose(methods, sizes, seeds)
        if outcome.left or more.keys() <= cells.keys():
            break
        cells = more  # a sweep has come to the edge of its rates
        table.match_existing(cells)
    if protocol.write_models:
        table.write_models(sizes, note)
    if archive is not None:
        write_archive(out, archive)
    failed = {(cell.trial.task, cell.arm, cell.column) for job, cell in table.of_job.items() if job in failures}
    left = sum(not table.done(cell) and str(cell) not in failures for cell in cells)
    summary = summarise(out, spec_of(table.protocol, name), failed).to_dict()
    return summary | {"open": left, "failed": [f"{job}: {why}" for job, why in failures.items()]}


class Keeper:
    """Writes the result of a job as it comes, and describes it in a line."""

    def __init__(self, table: TableJobs, archive: Path | None) -> None:
        self.table, self.archive, self.commit = table, archive, _commit()

    def __call__(self, job: Job, result: Any) -> str:
        cell = self.table.of_job.get(job.name)
        if cell is None:  # a source, or initial weights
            self.table.write_sources(self.table.of_job.values())
            return job.name
        head, run = result
        update = {"table": self.table.name}
        add_run(self.table.path(cell), head.model_copy(update=update), run.model_copy(update={"commit": self.commit}))
        self.table.clear(cell)
        if self.archive is not None:
            write_archive(self.table.out, self.archive)
        metric = TASKS[cell.trial.task]
        return f"{cell}: {metric.label} {run.value(metric.key):.2f}  {run.seconds:.0f} s"


def dry_run(
    protocol: Protocol,
    name: str,
    *,
    methods: list[str] | None = None,
    sizes: list[str] | None = None,
    seeds: int | None = None,
    out: Path | None = None,
) -> dict[str, object]:
    """What :func:`run` would do, checked as far as it can be without images; nothing is written.

    Only results below ``out`` are read: those of sweeps, which choose settings.
    """
    transfer = [f"{trial.data}=shapes:" for trial in protocol.trials if trial.data]
    table = TableJobs(protocol, name, out or Path(os.devnull, "results"), "shapes:", transfer, "cpu")
    return plan(table.protocol, name, table.choose(methods, sizes, seeds))


def write_archive(out: Path, archive: Path) -> None:
    """All JSON files below ``out`` in one tar file, which unpacked over another ``out`` adds to it."""
    with replacing(archive) as temporary, tarfile.open(temporary, "w") as tar:
        for path in sorted(out.rglob("*.json")):
            tar.add(path, path.relative_to(out))


def _commit() -> str | None:
    """The commit that is measured, with ``-dirty`` where its code was changed since; None outside a checkout."""

    def said(*command: str) -> str:
        code = Path(__file__).parents[1]
        return subprocess.run(["git", *command], capture_output=True, text=True, cwd=code, timeout=10).stdout.strip()

    try:
        commit, changed = said("rev-parse", "--short", "HEAD"), said("status", "--porcelain", "--", ".")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit}-dirty" if commit and changed else commit or None
