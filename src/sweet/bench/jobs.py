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
from sweet.results.files import add_run, check_same, read_cell, result_path, write_source
from sweet.results.records import CellResult

from .arms import Arm
from .cells import description, finetune_recipe, measure, run_folder
from .estimates import cell_flops, source_flops, start_flops
from .protocol import Cell, Protocol, Trial
from .schedule import Job
from .sources import Sources, learn_source
from .starts import make_start, start_folder, switches_of

COMPARED = ("recipe_hash", "source", "switches")  # what a cell's file must have in common with a run of today


class TableJobs:
    """One table of a protocol, its images, and where its results go.

    ``data`` are the images of pre-training, by default the recipe's own; ``transfer`` are NAME=SRC of other sets.
    Raises UserError for missing images and unknown sets.
    """

    def __init__(
        self, protocol: Protocol, name: str, out: Path, data: str | None, transfer: list[str] | None, device: str
    ) -> None:
        self.protocol, self.name, self.out, self.device = protocol, name, out, device
        self.sets = _sets(protocol, name, transfer)
        self.data = data or _own_data(protocol)
        self.sources = Sources(protocol, self.data)
        self.of_job: dict[str, Cell] = {}
        self.recipes: dict[str, PretrainRecipe] = {}  # of the sources that the chosen cells need

    def choose(
        self, methods: list[str] | None, sizes: list[str] | None, seeds: int | None
    ) -> dict[Cell, FinetuneRecipe]:
        """The requested cells with their recipes. Raises UserError for an arm or a size that the table lacks."""
        arms = _known("--methods", methods, self.protocol.arms)
        chosen = _known("--sizes", sizes, self.protocol.sizes)
        for source in dict.fromkeys(map(self.protocol.source_of, arms)):
            self.recipes[source] = self.sources.recipe(source).model_copy(update={"device": self.device})
        trials = [trial for trial in self.protocol.trials if trial.data is None or trial.data in self.sets]
        return {cell: self.recipe(cell) for cell in self.protocol.cells(arms, chosen, trials, seeds)}

    def images(self, trial: Trial) -> str:
        """The images that a trial is on."""
        return self.data if trial.data is None else self.sets[trial.data]

    def source(self, cell: Cell) -> Path:
        """The folder of a cell's source."""
        return self.sources.folder(self.protocol.source_of(cell.arm))

    def recipe(self, cell: Cell) -> FinetuneRecipe:
        """How a cell is fine-tuned."""
        recipe = self.recipes[self.protocol.source_of(cell.arm)]
        return finetune_recipe(self.protocol, cell, recipe, self.images(cell.trial))

    def path(self, cell: Cell, table: str = "") -> Path:
        """The result file of a cell, in this table or another of the same protocol."""
        task, set = cell.trial.task, cell.trial.data
        name = table or self.name
        return result_path(self.out, self.protocol.name, name, task=task, arm=cell.arm, size=cell.size, set=set)

    def done(self, cell: Cell) -> bool:
        """Whether its result is written."""
        path = self.path(cell)
        return path.is_file() and any(run.seed == cell.seed for run in read_cell(path).runs)

    def match_existing(self, cell: Cell, recipe: FinetuneRecipe) -> None:
        """Check that a run of today would fit to what is there; take the run over where another table has it.

        Raises UserError where the file of the cell is of another budget, source or initialisation.
        """
        path, wanted = self.path(cell), description(self.protocol, cell, recipe, self.source(cell))
        if path.is_file():
            check_same(path, self._with_all_switches(read_cell(path)), wanted, COMPARED)
        if self.done(cell):
            return
        for there in (self.path(cell, other) for other in self.protocol.borrows):
            if not there.is_file():
                continue
            found = self._with_all_switches(read_cell(there))
            if any(getattr(found, key) != getattr(wanted, key) for key in COMPARED):
                continue
            for run in found.runs:
                checked = run.init_knn is not None or not self.protocol.checks(cell.trial)
                if run.seed == cell.seed and checked:
                    add_run(path, found.model_copy(update={"table": self.name}), run)
                    return

    def _with_all_switches(self, cell: CellResult) -> CellResult:
        """A cell with all switches that its method has now: one that came later was at its default then."""
        switches = switches_of(Arm(cell.method, switches=cell.switches), self.protocol.layers)
        return cell.model_copy(update={"switches": switches})

    def jobs(self, cells: dict[Cell, FinetuneRecipe]) -> list[Job]:
        """Cells in order, each after the sources and the initial weights that it needs and that the cache lacks."""
        jobs: dict[str, Job] = {}
        protocol, sources = self.protocol, self.sources

        def add(name: str, call: Callable[..., Any], args: tuple[Any, ...], flops: float, *needs: str, at: Path) -> str:
            jobs.setdefault(name, Job(name, call, args, cache_folder() / "locks" / at.name, flops, needs))
            return name

        for cell, recipe in cells.items():
            needs: list[str] = []
            for source in sources.chain(protocol.source_of(cell.arm)):
                if not sources.learned(source):
                    args, at = (sources, source, self.device), sources.folder(source)
                    needs = [add(f"source {source}", learn_source, args, source_flops(protocol, source), *needs, at=at)]
            folder = self.source(cell)
            start = start_folder(protocol, cell, folder, self.data)
            if start is not None and not (start / "start.json").is_file():
                making = (protocol, cell, folder, self.data, self.device)
                flops = start_flops(protocol, cell)
                needs = [add(f"start {start.name}", make_start, making, flops, *needs, at=start)]
            work_on, at = (protocol, cell, recipe, folder, self.data), run_folder(protocol, cell, recipe, folder)
            self.of_job[add(str(cell), measure, work_on, cell_flops(protocol, cell, recipe), *needs, at=at)] = cell
        return [
            replace(job, done=partial(self.done, self.of_job[name])) if name in self.of_job else job
            for name, job in jobs.items()
        ]

    def write_sources(self) -> None:
        """Write down what the sources that are there have cost."""
        for source in filter(self.sources.learned, self.recipes):
            write_source(self.out, self.protocol.name, source, self.sources.result(source))

    def clear(self, cell: Cell) -> None:
        """Delete the checkpoints of a cell whose result is written."""
        shutil.rmtree(run_folder(self.protocol, cell, self.recipe(cell), self.source(cell)), ignore_errors=True)

    def write_models(self, sizes: list[str] | None, note: Callable[[str], None]) -> None:
        """A model folder of every size, once the source is there."""
        from sweet.initialise.make import initialise_to
        from sweet.template.sizes import Size

        source = self.protocol.source_of(self.protocol.main)
        for size in sizes or self.protocol.sizes if self.sources.learned(source) else ():
            folder, target = self.out / "models" / size, Size.parse(size)
            if not (folder / "config.json").is_file():
                initialise_to(str(self.sources.folder(source)), folder, depth=target.depth, heads=target.heads)
            note(f"made {folder}")


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


def _own_data(protocol: Protocol) -> str:
    source = load_recipe(PretrainRecipe, protocol.pretrain, []).data.source
    if source is None:
        raise UserError(f"--data: protocol {protocol.name} needs images, for example --data parquet:PATH/cifar10")
    return source
