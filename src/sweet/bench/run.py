"""``sweet bench``: the open cells of a table, measured by worker processes, each result written as it comes."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from sweet.files import replacing, write_json
from sweet.results.files import add_run, write_spec
from sweet.results.summary import summarise
from sweet.tasks.registry import TASKS

from .estimates import plan
from .jobs import TableJobs
from .protocol import Protocol, spec_of
from .schedule import Job, cores, work


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
    archive: Path | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """Measure what is missing of table ``name`` and return it; killed and started again, it goes on.

    ``transfer`` are NAME=SRC, where the images of the table's other sets lie; only sets that are given are measured.
    After ``max_minutes`` everything stops at a checkpoint. ``archive`` is a tar file of all JSON below ``out``, written
    anew after each result. Raises UserError for an unknown method and size and for missing data, before anything is
    written.
    """
    from sweet.data.sources import source_splits
    from sweet.models.device import resolve_device

    until = None if max_minutes is None else time.time() + 60 * max_minutes
    table = TableJobs(protocol, name, out, data, transfer, device)
    cells = table.choose(methods, sizes, seeds)
    for images in {table.data, *(table.images(cell.trial) for cell in cells)}:
        source_splits(images)  # a UserError now, not one from each worker
    workers = workers or (min(2, cores()) if resolve_device(device).type == "cpu" else 1)
    for cell, recipe in cells.items():
        table.match_existing(cell, recipe)
    open_cells = {cell: recipe for cell, recipe in cells.items() if not table.done(cell)}
    jobs = table.jobs(open_cells)

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    note(f"{name} ({protocol.name}): {len(open_cells)} of {len(cells)} cells open, {workers} workers")
    # which folder this is, for --overwrite; what was measured where stands in each result
    write_json(out / "env.json", {"bench": name, "protocol": protocol.name, "workers": workers})
    write_spec(out, spec_of(protocol, name))
    table.write_sources()
    outcome = work(jobs, Keeper(table, archive), workers=workers, until=until, note=note)
    if protocol.write_models:
        table.write_models(sizes, note)
    left = [cell for cell in open_cells if not table.done(cell) and str(cell) not in outcome.failed]
    failed = {(cell.arm, cell.column) for job, cell in table.of_job.items() if job in outcome.failed}
    summary = summarise(out, spec_of(protocol, name), failed)
    if archive is not None:
        write_archive(out, archive)
    return summary.to_dict() | {
        "open": len(left),
        "failed": [f"{job}: {why}" for job, why in outcome.failed.items()],
    }


class Keeper:
    """Writes the result of a job as it comes, and describes it in a line."""

    def __init__(self, table: TableJobs, archive: Path | None) -> None:
        self.table, self.archive, self.commit = table, archive, _commit()

    def __call__(self, job: Job, result: Any) -> str:
        cell = self.table.of_job.get(job.name)
        if cell is None:  # a source, or initial weights
            self.table.write_sources()
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
) -> dict[str, object]:
    """What :func:`run` would do, checked as far as it can be without images; nothing is read or written."""
    transfer = [f"{trial.data}=shapes:" for trial in protocol.trials if trial.data]
    table = TableJobs(protocol, name, Path(), "shapes:", transfer, "cpu")
    return plan(protocol, name, table.choose(methods, sizes, seeds))


def write_archive(out: Path, archive: Path) -> None:
    """All JSON files below ``out`` in one tar file, which unpacked over another ``out`` adds to it."""
    with replacing(archive) as temporary, tarfile.open(temporary, "w") as tar:
        for path in sorted(out.rglob("*.json")):
            tar.add(path, path.relative_to(out))


def _commit() -> str | None:
    """The commit that is measured, or None outside a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
