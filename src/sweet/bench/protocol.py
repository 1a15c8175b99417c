"""What a table compares: protocols, trials and cells as records. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from sweet.initialise.registry import NAMES
from sweet.recipes.loader import load_recipe
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import ModelKeys, PretrainRecipe
from sweet.results.records import RULES, ArmSpec, ColumnSpec, TableSpec
from sweet.template.sizes import Size

from .arms import SOURCES, Arm, Checkpoint, Converted, FineTuned, Recipe, Rotated

Overrides = tuple[str, ...]  # "key=value" of a recipe


@dataclass(frozen=True)
class Trial:
    """What every arm is tested by: a task, on images beside those of pre-training, and what differs in its budget.

    ``data`` is the NAME of ``--transfer NAME=SRC``; None: the images of pre-training. ``finetune`` overrides
    ``Protocol.finetune``, or the recipe of another task than classification. For images of ``img_size`` pixels in
    patches of ``patch_size`` the initial weights are resampled; None: as the source saw them. ``images`` is the size of
    a transfer set's training split, for estimates only.
    """

    task: str = "classify"
    data: str | None = None
    finetune: Overrides = ()
    img_size: int | None = None
    patch_size: int | None = None
    images: int | None = None

    def column(self, size: str) -> ColumnSpec:
        """The table's column of this trial at a size."""
        return ColumnSpec(size=size, task=self.task, set=self.data, img_size=self.img_size, patch_size=self.patch_size)


class Cell(NamedTuple):
    """One fine-tuning and its test: a row, a column and a seed of a table."""

    arm: str
    trial: Trial
    size: str
    seed: int

    @property
    def column(self) -> str:
        """The name of its column."""
        return self.trial.column(self.size).name

    def __str__(self) -> str:
        task = "" if self.trial.task == "classify" else f"{self.trial.task} "
        return f"{task}{self.arm} {self.column} seed {self.seed}"


@dataclass(frozen=True)
class Protocol:
    """Arms, columns, seeds and budgets of one table.

    ``pretrain`` names the recipe from which ``sources`` are made (:data:`sweet.bench.arms.SOURCES`), ``finetune`` are
    overrides of a fine-tuning recipe. A seed is a replicate: sources, initial weights and fine-tuning by that seed;
    with ``one_source`` that of fine-tuning and of weights drawn at random. ``fewer_seeds`` are those of sizes that take
    longer, and ``partial`` names the only sizes of some arms.

    ``main`` is the arm that the others are compared with; in an ``ablation`` the arms are variants of one method, and
    main is compared with all of them. With ``validation`` settings are chosen: cells are tested on training images that
    nobody was given a label of, so many. ``chosen_by`` are such tables, whose best variants of each arm are taken
    (:mod:`.sweeps`); a sweep of rates begins with ``first_rates``. ``borrows`` names tables whose runs are taken over
    where they are the same cell. With ``shows_costs`` classifiers are tested before their fine-tuning too, which takes
    a sixth more. ``write_models`` leaves model folders of every size beside the results. ``images`` is the size of the
    pre-training set, for estimates only.
    """

    name: str
    pretrain: str
    sizes: tuple[str, ...]
    arms: dict[str, Arm]
    seeds: int
    finetune: Overrides
    sources: dict[str, Recipe] = field(default_factory=lambda: SOURCES)
    fewer_seeds: Mapping[str, int] = field(default_factory=dict)
    partial: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    one_source: bool = False
    trials: tuple[Trial, ...] = (Trial(),)
    layers: str = "even"
    main: str = "sweet"
    ablation: bool = False
    validation: int | None = None
    first_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    chosen_by: Mapping[str, Protocol] = field(default_factory=dict)
    borrows: tuple[str, ...] = ()
    shows_costs: bool = False
    write_models: bool = False
    images: int = 50_000

    def cells(self, arms: list[str], sizes: list[str], trials: list[Trial], seeds: int | None) -> list[Cell]:
        """The cells of a part of the table, seed outermost; ``seeds`` of each size, default the table's own."""
        wanted = {size: self.fewer_seeds.get(size, self.seeds) if seeds is None else seeds for size in sizes}
        return [
            Cell(arm, trial, size, seed)
            for seed in range(max(wanted.values(), default=0))
            for trial in trials
            for size in sizes
            for arm in arms
            if seed < wanted[size] and self.can(arm, size)
        ]

    def can(self, arm: str, size: str) -> bool:
        """Whether a table has a cell: some methods cannot grow, WAVE makes whole tiles, and some arms are partial."""
        if size not in self.partial.get(arm, self.sizes):
            return False
        config = self.shape(arm, size)
        target, method = Size.parse(size, config.head_dim), self.arms[arm].method
        larger = target.depth > config.depth or target.heads > config.heads
        return (NAMES[method].grows or not larger) and (method != "wave" or target.width % self.tile(arm, size) == 0)

    def shape(self, arm: str, size: str) -> ModelKeys:
        """Of the source that an arm starts from; one that is made of another is as large as that."""
        return self.own_recipe(self.source_of(arm, size)).model

    def tile(self, arm: str, size: str) -> int:
        """Of an arm's Kronecker source."""
        return resolve(self.own_recipe(self.source_of(arm, size))).tile

    def own_recipe(self, source: str) -> PretrainRecipe:
        """What a source is trained by, without its images and the sources that it refers to.

        Of one that is made of another what that was trained by; of a checkpoint its shape.
        """
        made = self.sources[source]
        if isinstance(made, Converted | Rotated | FineTuned):
            return self.own_recipe(made.of)
        return _recipe(self.pretrain, made.shape if isinstance(made, Checkpoint) else tuple(own_overrides(made)))

    @property
    def from_checkpoint(self) -> bool:
        """Whether nothing is pre-trained."""
        return any(isinstance(made, Checkpoint) for made in self.sources.values())

    def replicate(self, seed: int) -> int:
        """The seed of the sources, and of initial weights made from images, of the cells of a seed."""
        return 0 if self.one_source else seed

    def checks(self, trial: Trial) -> bool:
        """Whether a classifier is tested before it is fine-tuned too."""
        return self.shows_costs and trial.task == "classify"

    def source_of(self, arm: str, size: str) -> str:
        """The source of an arm; one without any takes its shape from the first."""
        return (self.arms[arm].source or next(iter(self.sources))).format(size=size)


@cache
def _recipe(name: str, overrides: Overrides) -> PretrainRecipe:
    return load_recipe(PretrainRecipe, name, overrides)


def own_overrides(made: list[str]) -> list[str]:
    """Those that a recipe has; ``init_from=@NAME`` and ``teacher=@NAME`` name another source of the table."""
    return [value for value in made if "=@" not in value]


def spec_of(protocol: Protocol, table: str) -> TableSpec:
    """What ``table.json`` says of a table: all that a renderer needs beside the cells."""
    return TableSpec(
        table=table,
        protocol=protocol.name,
        version=RULES,
        one_source=protocol.one_source,
        validation=protocol.validation is not None,
        chosen_by=tuple(protocol.chosen_by),
        arms=tuple(
            ArmSpec(name=name, method=arm.method, role=arm.role, source=arm.source, about=arm.about)
            for name, arm in protocol.arms.items()
        ),
        columns=tuple(
            trial.column(size).model_copy(update={"seeds": protocol.fewer_seeds.get(size, protocol.seeds)})
            for trial in protocol.trials
            for size in protocol.sizes
        ),
        main=protocol.main,
        ablation=protocol.ablation,
        shows_costs=protocol.shows_costs,
        impossible=tuple(
            (arm, size) for arm in protocol.arms for size in protocol.sizes if not protocol.can(arm, size)
        ),
    )
