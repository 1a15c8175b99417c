"""``sweet bench``: the open cells of a table, measured by worker processes, each result written as it comes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sweet.errors import UserError
from sweet.files import read_json, replacing, write_json
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.results.cells import add_run, check_same, read_cell, result_path, write_source
from sweet.results.summary import summary
from sweet.tasks.registry import TASKS

from .arms import Arm
from .cells import finetune_recipe, hash_of, measure, run_folder, told_of
from .estimates import cell_flops, plan, source_flops, start_flops
from .protocols import PROTOCOLS, Cell, Protocol, Trial
from .schedule import Job, cores, work
from .sources import cache_folder, chain, learn_source, learned, source_facts, source_folder, source_recipe
from .starts import make_start, start_folder, switches_of

COMPARED = ("recipe_hash", "source", "switches")  # what a cell's file must have in common with a run of today


def run(
    name: str,
    *,
    protocol: str,
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
) -> dict[str, Any]:
    """Measure what is missing of table ``name`` and return it; killed and started again, it goes on.

    ``transfer`` are NAME=SRC, where the images of the table's other sets lie; only sets that are told are measured.
    After ``max_minutes`` everything stops at a checkpoint. ``archive`` is a tar file of all JSON below ``out``, written
    anew after each result. Raises UserError for an unknown table, method or size and for missing data, before anything
    is written.
    """
    from sweet.data.sources import source_splits
    from sweet.training.device import resolve_device

    until = None if max_minutes is None else time.time() + 60 * max_minutes
    table = _Table(name, protocol, out, data, transfer, device)
    cells = table.choose(methods, sizes, seeds)
    for spec in {table.data, *(table.images(cell.trial) for cell in cells)}:
        source_splits(spec)  # a UserError now, not one from each worker
    kind = resolve_device(device).type
    workers = workers or (min(2, cores()) if kind == "cpu" else 1)
    for cell in cells:
        table.settle(cell)
    open_cells = [cell for cell in cells if not table.done(cell)]
    jobs = table.jobs(open_cells)
    commit = _commit()

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    note(f"{name} ({protocol}): {len(open_cells)} of {len(cells)} cells open, {workers} workers")
    # which folder this is, for --overwrite; what was measured where stands in each result
    write_json(out / "env.json", {"bench": name, "protocol": table.told.name, "workers": workers})
    table.tell_sources()

    def keep(job: Job, result: Any) -> str:
        cell = table.of_job.get(job.name)
        if cell is None:
            table.tell_sources()
            return job.name
        head, one = result
        add_run(table.path(cell), {"protocol": table.told.name, "table": name, **head}, {**one, "commit": commit})
        table.clear(cell)
        if archive is not None:
            write_archive(out, archive)
        metric = TASKS[cell.trial.task]
        return f"{cell}: {metric.label} {one[metric.key]:.2f}  {one['seconds']:.0f} s"

    outcome = work(jobs, keep, workers=workers, until=until, note=note)
    if table.told.write_models:
        table.write_models(sizes, note)
    left = [cell for cell in open_cells if not table.done(cell) and str(cell) not in outcome.failed]
    failed = [table.of_job[job] for job in outcome.failed if job in table.of_job]
    found = summary(out, name, table.told, failed)
    if archive is not None:
        write_archive(out, archive)
    return found | {"open": len(left), "failed": [f"{job}: {why}" for job, why in outcome.failed.items()]}


def dry_run(
    name: str,
    *,
    protocol: str,
    methods: list[str] | None = None,
    sizes: list[str] | None = None,
    seeds: int | None = None,
) -> dict[str, Any]:
    """What :func:`run` would do, checked as far as it can be without images; nothing is read or written."""
    told = find(name, protocol)
    everything = [f"{trial.data}=shapes:" for trial in told.trials if trial.data]
    table = _Table(name, protocol, Path(), "shapes:", everything, "cpu")
    cells = table.choose(methods, sizes, seeds)
    return plan(told, name, cells, {cell: table.recipe(cell) for cell in cells})


class _Table:
    """One table of a protocol, its images, and where its results go."""

    def __init__(
        self, name: str, protocol: str, out: Path, data: str | None, transfer: list[str] | None, device: str
    ) -> None:
        self.told, self.name, self.out, self.device = find(name, protocol), name, out, device
        self.sets = _sets(self.told, name, transfer)
        self.data = data or _own_data(self.told)
        self.of_job: dict[str, Cell] = {}
        self.recipes: dict[str, PretrainRecipe] = {}
        self.folders: dict[str, Path] = {}

    def choose(self, methods: list[str] | None, sizes: list[str] | None, seeds: int | None) -> list[Cell]:
        """The cells that are asked for. Raises UserError for what this table does not have."""
        arms, chosen = _known("--methods", methods, self.told.arms), _known("--sizes", sizes, self.told.sizes)
        for source in {self.told.source_of(arm) for arm in arms}:
            recipe = source_recipe(self.told, source, self.data)
            self.recipes[source] = recipe.model_copy(update={"device": self.device})
            self.folders[source] = source_folder(self.told, source, self.data)
        trials = [trial for trial in self.told.trials if trial.data is None or trial.data in self.sets]
        return self.told.cells(arms, chosen, trials, seeds)

    def images(self, trial: Trial) -> str:
        return self.data if trial.data is None else self.sets[trial.data]

    def source(self, cell: Cell) -> Path:
        return self.folders[self.told.source_of(cell.arm)]

    def recipe(self, cell: Cell) -> FinetuneRecipe:
        return finetune_recipe(self.told, cell, self.recipes[self.told.source_of(cell.arm)], self.images(cell.trial))

    def path(self, cell: Cell) -> Path:
        return result_path(self.out, self.told.name, self.name, cell)

    def done(self, cell: Cell) -> bool:
        path = self.path(cell)
        return path.is_file() and any(run["seed"] == cell.seed for run in read_json(path)["runs"])

    def settle(self, cell: Cell) -> None:
        """See that a run would fit to what is there, and take it over where another table has it.

        Raises UserError where the file of the cell is of another budget, source or start.
        """
        path, arm = self.path(cell), self.told.arms[cell.arm]
        head = {
            "recipe_hash": hash_of(self.recipe(cell), self.told.layers),
            "recipe": told_of(self.recipe(cell)),
            "source": self.source(cell).name if arm.source else None,
            "switches": switches_of(arm, self.told.layers),
        }
        if path.is_file():
            check_same(path, self._today(read_cell(path)), head, COMPARED)
        if self.done(cell):
            return
        for other in self.told.borrows:
            there = result_path(self.out, self.told.name, other, cell)
            found = self._today(read_cell(there)) if there.is_file() else {"runs": []}
            for one in found.pop("runs"):
                enough = "init_knn" in one or not self.told.checks(cell.trial)
                if one["seed"] == cell.seed and enough and all(found.get(key) == head[key] for key in COMPARED):
                    add_run(path, found | {"table": self.name}, one)
                    return

    def _today(self, cell: dict[str, Any]) -> dict[str, Any]:
        """A cell with all switches that its method has now: one that came later stood at its default then.

        The oldest cells tell no switches; nothing can be compared with them.
        """
        if "switches" not in cell:
            return cell
        return cell | {"switches": switches_of(Arm(cell["method"], switches=cell["switches"]), self.told.layers)}

    def jobs(self, cells: list[Cell]) -> list[Job]:
        """Cells in order, each after the sources and the start that it needs and that the cache lacks."""
        jobs: dict[str, Job] = {}
        told, data = self.told, self.data

        def add(name: str, call: Callable[..., Any], args: tuple[Any, ...], flops: float, *needs: str, at: Path) -> str:
            jobs.setdefault(name, Job(name, call, args, cache_folder() / "locks" / at.name, flops, needs))
            return name

        for cell in cells:
            needs: list[str] = []
            for source in chain(told, told.source_of(cell.arm)):
                if not learned(told, source, data):
                    args, at = (told, source, data, self.device), source_folder(told, source, data)
                    needs = [add(f"source {source}", learn_source, args, source_flops(told, source), *needs, at=at)]
            recipe, source_at = self.recipe(cell), self.source(cell)
            start = start_folder(told, cell, source_at, data)
            if start is not None and not (start / "start.json").is_file():
                making = (told, cell, source_at, data, self.device)
                needs = [add(f"start {start.name}", make_start, making, start_flops(told, cell), *needs, at=start)]
            work_on, at = (told, cell, recipe, source_at, data), run_folder(told, cell, recipe, source_at)
            self.of_job[add(str(cell), measure, work_on, cell_flops(told, cell, recipe), *needs, at=at)] = cell
        return [
            replace(job, done=partial(self.done, self.of_job[name])) if name in self.of_job else job
            for name, job in jobs.items()
        ]

    def tell_sources(self) -> None:
        """Write down what the sources that are there have cost."""
        for source in self.folders:
            if learned(self.told, source, self.data):
                write_source(self.out, self.told.name, source, source_facts(self.told, source, self.data))

    def clear(self, cell: Cell) -> None:
        """Forget the checkpoints of a cell whose result is written."""
        shutil.rmtree(run_folder(self.told, cell, self.recipe(cell), self.source(cell)), ignore_errors=True)

    def write_models(self, sizes: list[str] | None, note: Any) -> None:
        """A model folder of every size, once the source is there."""
        from sweet.initialise.make import initialise_to
        from sweet.template.sizes import Size

        source = self.told.arms["sweet"].source or ""
        for size in sizes or self.told.sizes if learned(self.told, source, self.data) else ():
            folder, target = self.out / "models" / size, Size.parse(size)
            if not (folder / "config.json").is_file():
                made_from = str(source_folder(self.told, source, self.data))
                initialise_to(made_from, folder, depth=target.depth, heads=target.heads)
            note(f"made {folder}")


def write_archive(out: Path, archive: Path) -> None:
    """All JSON files below ``out`` in one tar file, which unpacked over another ``out`` adds to it."""
    with replacing(archive) as temporary, tarfile.open(temporary, "w") as tar:
        for path in sorted(out.rglob("*.json")):
            tar.add(path, path.relative_to(out))


def find(name: str, protocol: str) -> Protocol:
    """A protocol by the names of the command line. Raises UserError with those that there are."""
    if (name, protocol) not in PROTOCOLS:
        known = ", ".join(f"{n} --protocol {p}" for n, p in PROTOCOLS)
        raise UserError(f"bench {name} --protocol {protocol}: unknown, there are: {known}")
    return PROTOCOLS[name, protocol]


def _sets(told: Protocol, name: str, transfer: list[str] | None) -> dict[str, str]:
    """{NAME: SRC} of --transfer. Raises UserError for a set that the table does not have, and where it has no other."""
    known = list(dict.fromkeys(trial.data for trial in told.trials if trial.data))
    sets = {}
    for word in transfer or ():
        key, equals, spec = word.partition("=")
        if not equals or key not in known:
            wanted = f"NAME=SRC with NAME one of {', '.join(known)}" if known else "none, this table has no other sets"
            raise UserError(f"--transfer {word}: expected {wanted}")
        sets[key] = spec
    if not sets and all(trial.data for trial in told.trials):
        raise UserError(
            f"--transfer: {name} compares on {', '.join(known)}; tell where one or more of them lie, NAME=SRC"
        )
    return sets


def _known(option: str, asked: list[str] | None, there: Iterable[str]) -> list[str]:
    for word in asked or ():
        if word not in there:
            raise UserError(f"{option} {word}: not in this table, expected some of {', '.join(there)}")
    return asked or list(there)


def _own_data(protocol: Protocol) -> str:
    source = load_recipe(PretrainRecipe, protocol.pretrain, []).data.source
    if source is None:
        raise UserError(f"--data: protocol {protocol.name} needs images, for example --data parquet:PATH/cifar10")
    return source


def _commit() -> str | None:
    """The commit that is measured, or None outside a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
