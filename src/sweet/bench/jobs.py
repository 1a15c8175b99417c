"""One table of a protocol on its images: which cells it has, where their results go, which jobs are left to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sweet.errors import UserError
from sweet.files import cache_folder
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.results.choices import row_of
from sweet.results.files import add_run, check_same, check_source, read_cell, result_path, write_source
from sweet.results.records import CellResult, Run

from .arms import Arm
from .cells import description, finetune_recipe, measure, run_folder
from .estimates import cell_flops, source_flops, start_flops
from .protocol import Cell, Protocol, Trial
from .schedule import Job
from .sources import Sources, learn_source, weights_sha256
from .starts import make_start, starts_to_make, switches_of
from .sweeps import measured, rates_to_try, with_choices

COMPARED = ("recipe_hash", "switches")  # what a cell's file must have in common with a run of today


class TableJobs:
    """One table of a protocol, its images, and where its results go.

    ``data`` are the images of pre-training, by default the recipe's own; ``transfer`` are NAME=SRC of other sets.
    Raises UserError for missing images and unknown sets.
    """

    def __init__(
        self,
        protocol: Protocol,
        name: str,
        out: Path,
        data: str | None,
        transfer: list[str] | None,
        device: str,
        checkpoint: str | None = None,
    ) -> None:
        self.protocol, self.name, self.out, self.device = with_choices(protocol, out), name, out, device
        self.sets = _sets(protocol, name, transfer)
        self.checkpoint = checkpoint
        self.data = data or _own_data(protocol, self.sets)
        self.of_job: dict[str, Cell] = {}

    def choose(
        self, methods: list[str] | None, sizes: list[str] | None, seeds: int | None
    ) -> dict[Cell, FinetuneRecipe]:
        """The requested cells with their recipes; of a sweep, as far as what was measured leads.

        Raises UserError for an arm or a size that the table lacks.
        """
        arms = self._arms(methods)
        chosen = _known("--sizes", sizes, self.protocol.sizes)
        trials = [trial for trial in self.protocol.trials if trial.data is None or trial.data in self.sets]
        return {cell: self.recipe(cell) for cell in self.protocol.cells(arms, chosen, trials, seeds)}

    def _arms(self, methods: list[str] | None) -> list[str]:
        """The arms that are named, of a sweep also by their rows."""
        arms = self.protocol.arms
        if self.protocol.validation is None:
            return _known("--methods", methods, arms)
        rows = [*dict.fromkeys(map(row_of, arms))]
        named = _known("--methods", methods, [*rows, *arms])
        tried = rates_to_try(self.protocol, measured(self.protocol, self.name, self.out))
        return [arm for arm in tried if arm in named or row_of(arm) in named]

    def images(self, trial: Trial) -> str:
        """The images that a trial is on."""
        return self.data if trial.data is None else self.sets[trial.data]

    def check_inputs(self, cells: Iterable[Cell]) -> None:
        """Raises UserError for missing images, or a missing checkpoint: now, not from each worker."""
        from sweet.data.sources import source_splits

        if self.protocol.from_checkpoint:
            weights_sha256(self.checkpoint)
        for trial in dict.fromkeys(cell.trial for cell in cells):
            source_splits(self.unlabelled(trial))
            source_splits(self.images(trial))

    def unlabelled(self, trial: Trial) -> str:
        """The images that sources and starts look at: those of pre-training, if the table has any."""
        return self.images(trial) if self.protocol.from_checkpoint else self.data

    def sources(self, cell: Cell) -> Sources:
        """The sources of a cell's replicate; of a checkpoint, those for the images of its trial."""
        trial, seed = cell.trial, self.protocol.replicate(cell.seed)
        if not self.protocol.from_checkpoint:
            return Sources(self.protocol, self.data, seed)
        return Sources(self.protocol, self.unlabelled(trial), seed, self.checkpoint, trial.img_size)

    def source(self, cell: Cell) -> Path:
        """The folder of a cell's source."""
        return self.sources(cell).folder(self.protocol.source_of(cell.arm, cell.size))

    def recipe(self, cell: Cell) -> FinetuneRecipe:
        """How a cell is fine-tuned."""
        recipe = self.sources(cell).recipe(self.protocol.source_of(cell.arm, cell.size))
        learned = recipe.model_copy(update={"device": self.device})
        return finetune_recipe(self.protocol, cell, learned, self.images(cell.trial))

    def path(self, cell: Cell, table: str = "") -> Path:
        """The result file of a cell, in this table or another of the same protocol."""
        task, set = cell.trial.task, cell.trial.data
        name = table or self.name
        return result_path(self.out, self.protocol.name, name, task=task, arm=cell.arm, size=cell.size, set=set)

    def done(self, cell: Cell) -> bool:
        """Whether its result is written."""
        path = self.path(cell)
        return path.is_file() and any(run.seed == cell.seed for run in read_cell(path).runs)

    def match_existing(self, cells: dict[Cell, FinetuneRecipe]) -> None:
        """:meth:`_match` every cell."""
        for cell, recipe in cells.items():
            self._match(cell, recipe)

    def _match(self, cell: Cell, recipe: FinetuneRecipe) -> None:
        """Check that a run of today would fit to what is there; take the run over where another table has it.

        Raises UserError where the file of the cell is of another budget or initialisation, its run of another source.
        """
        path, wanted = self.path(cell), description(self.protocol, cell, recipe)
        if path.is_file():
            there = self._with_all_switches(read_cell(path))
            check_same(path, there, wanted, COMPARED)
            if run := _run_of(there, cell.seed):
                check_source(path, run, self.source_name(cell))
                return
        for other in (self.path(cell, name) for name in self.protocol.borrows):
            if not other.is_file():
                continue
            found = self._with_all_switches(read_cell(other))
            run = _run_of(found, cell.seed)
            if run is None or any(getattr(found, key) != getattr(wanted, key) for key in COMPARED):
                continue
            checked = run.init_knn is not None or not self.protocol.checks(cell.trial)
            if run.source == self.source_name(cell) and checked:
                add_run(path, found.model_copy(update={"table": self.name}), run)
                return

    def source_name(self, cell: Cell) -> str | None:
        """Of the weights that a cell starts from; None where its arm has no source."""
        return None if self.protocol.arms[cell.arm].source is None else self.source(cell).name

    def _with_all_switches(self, cell: CellResult) -> CellResult:
        """A cell with all switches that its method has now: one that came later was at its default then."""
        switches = switches_of(Arm(cell.method, switches=cell.switches), self.protocol.layers)
        return cell.model_copy(update={"switches": switches})

    def jobs(self, cells: dict[Cell, FinetuneRecipe]) -> list[Job]:
        """Cells in order, each after the sources and the initial weights that it needs and that the cache lacks."""
        jobs: dict[str, Job] = {}
        protocol = self.protocol

        def add(name: str, call: Callable[..., Any], args: tuple[Any, ...], flops: float, *needs: str, at: Path) -> str:
            jobs.setdefault(name, Job(name, call, args, cache_folder() / "locks" / at.name, flops, needs))
            return name

        for cell, recipe in cells.items():
            needs: list[str] = []
            sources, data = self.sources(cell), self.unlabelled(cell.trial)
            for source in sources.chain(protocol.source_of(cell.arm, cell.size)):
                if not sources.learned(source):
                    args, at = (sources, source, self.device), sources.folder(source)
                    job, flops = f"source {source} {at.name.rpartition('-')[2]}", source_flops(protocol, source)
                    needs = [add(job, learn_source, args, flops, *needs, at=at)]
            folder = self.source(cell)
            for start, way in starts_to_make(protocol, cell, folder, data):
                making, flops = (way, cell, folder, data, self.device), start_flops(way, cell)
                needs = [add(f"start {start.name}", make_start, making, flops, *needs, at=start)]
            work_on, at = (protocol, cell, recipe, folder, data), run_folder(protocol, cell, recipe, folder)
            self.of_job[add(str(cell), measure, work_on, cell_flops(protocol, cell, recipe), *needs, at=at)] = cell
        return [
            replace(job, done=partial(self.done, self.of_job[name])) if name in self.of_job else job
            for name, job in jobs.items()
        ]

    def write_sources(self, cells: Iterable[Cell]) -> None:
        """Write down what the sources of cells have cost, those that are there."""
        seen = set()
        for cell in cells:
            sources, name = self.sources(cell), self.protocol.source_of(cell.arm, cell.size)
            place = name, sources.seed, sources.data, sources.img_size
            if place in seen or not sources.learned(name):
                continue
            seen.add(place)
            title, cached = f"{name}.seed{sources.seed}" if sources.seed else name, sources.folder(name).name
            write_source(self.out, self.protocol.name, title, cached, partial(sources.result, name))

    def clear(self, cell: Cell) -> None:
        """Delete the checkpoints of a cell whose result is written."""
        shutil.rmtree(run_folder(self.protocol, cell, self.recipe(cell), self.source(cell)), ignore_errors=True)

    def write_models(self, sizes: list[str] | None, note: Callable[[str], None]) -> None:
        """A model folder of every size and the source itself, once it is there; of the first replicate."""
        from sweet.initialise.make import initialise_to
        from sweet.template.sizes import Size

        names = sizes or self.protocol.sizes
        source = self.source(Cell(self.protocol.main, self.protocol.trials[0], names[0], 0))
        if not (source / "config.json").is_file():
            return
        for size in names:
            folder, target = self.out / "models" / size, Size.parse(size)
            if not (folder / "config.json").is_file():
                initialise_to(str(source), folder, depth=target.depth, heads=target.heads)
                note(f"made {folder}")
        kept = self.out / "models" / "template"
        if not kept.exists():
            shutil.copytree(source, kept.with_name(".template"), dirs_exist_ok=True).replace(kept)
            note(f"made {kept}; sweet init {kept} --params 500K --out DIR makes another size")


def _sets(protocol: Protocol, name: str, transfer: list[str] | None) -> dict[str, str]:
    """{NAME: SRC} of --transfer. Raises UserError for a set that the table does not have, and where it has no other."""
    known = list(dict.fromkeys(trial.data for trial in protocol.trials if trial.data))
    sets = {}
    for word in transfer or ():
        key, equals, spec = word.partition("=")
        if not equals or key not in known:
            wanted = f"NAME=SRC with NAME one of {', '.join(known)}" if known else "none, this table has no other sets"
            raise UserError(f"--transfer {word}: expected {wanted}")
        sets[key] = spec
    if not sets and all(trial.data for trial in protocol.trials):
        raise UserError(
            f"--transfer: {name} compares on {', '.join(known)}; say where one or more of them lie, NAME=SRC"
        )
    return sets


def _known(option: str, given: list[str] | None, there: Iterable[str]) -> list[str]:
    for word in given or ():
        if word not in there:
            raise UserError(f"{option} {word}: not in this table, expected some of {', '.join(there)}")
    return given or list(there)


def _run_of(cell: CellResult, seed: int) -> Run | None:
    return next((run for run in cell.runs if run.seed == seed), None)


def _own_data(protocol: Protocol, sets: dict[str, str]) -> str:
    if protocol.from_checkpoint:  # nothing is pre-trained
        return next(iter(sets.values()))
    source = load_recipe(PretrainRecipe, protocol.pretrain, []).data.source
    if source is None:
        raise UserError(f"--data: protocol {protocol.name} needs images, for example --data parquet:PATH/cifar10")
    return source
