"""Protocols (design section 7): recipe, sizes, seeds and fine-tuning budget of each table. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from sweet.initialise.registry import NAMES
from sweet.recipes.loader import load_recipe
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import PretrainRecipe
from sweet.template.sizes import Size

from .arms import (
    ABLATIONS,
    ARMS,
    CONSTRAINTS,
    DENSE,
    KRONECKER,
    SECOND_SOURCE,
    SOURCES,
    TAUGHT,
    Arm,
    Converted,
    FineTuned,
    Recipe,
    arms,
    sources,
)
from .studies import STUDY_ARMS, STUDY_SOURCES


@dataclass(frozen=True)
class Trial:
    """What every start is put to: a task, on images beside those of pre-training, and what differs in its budget.

    ``data`` is the NAME of ``--transfer NAME=SRC``; None: the images of pre-training. ``finetune`` goes over
    ``Protocol.finetune``, or over the recipe of another task than classification, group by group. Images of
    ``img_size`` pixels in patches of ``patch_size`` are met by resampling the start; None: as the source saw them.
    """

    task: str = "classify"
    data: str | None = None
    finetune: Mapping[str, Any] = field(default_factory=dict, hash=False)
    img_size: int | None = None
    patch_size: int | None = None
    images: int | None = None  # of a transfer set's training split: for estimates only

    def column(self, size: str) -> str:
        """How a table heads its column."""
        return f"{self.data} {size}" if self.data else size


class Cell(NamedTuple):
    """One fine-tuning and its test: a row, a column and a seed of a table."""

    arm: str
    trial: Trial
    size: str
    seed: int

    def __str__(self) -> str:
        task = "" if self.trial.task == "classify" else f"{self.trial.task} "
        return f"{task}{self.arm} {self.trial.column(self.size)} seed {self.seed}"


@dataclass(frozen=True)
class Protocol:
    """``pretrain`` names the recipe, ``sources`` are made from it (:data:`sweet.bench.arms.SOURCES`).

    ``arms`` are the rows by their names. ``borrows`` names tables of the same protocol whose runs are taken over where
    they are the same cell.
    """

    name: str
    pretrain: str
    sizes: tuple[str, ...]
    arms: dict[str, Arm]
    seeds: int
    finetune: dict[str, Any]
    sources: dict[str, Recipe] = field(default_factory=lambda: SOURCES)
    fewer: Mapping[str, int] = field(default_factory=dict)  # seeds of sizes that take longer
    trials: tuple[Trial, ...] = (Trial(),)
    layers: str = "even"
    ours: str = "sweet"  # the arm that the others are compared with
    ablation: bool = False  # its rows are ways of one method, and all others ours is compared with
    borrows: tuple[str, ...] = ()
    costs: bool = False  # the table also tells what initialising costs, and gives before any fine-tuning (a sixth more)
    write_models: bool = False  # model folders of every size beside the results
    images: int = 50_000  # of pre-training: for estimates only

    def cells(self, arms: list[str], sizes: list[str], trials: list[Trial], seeds: int | None) -> list[Cell]:
        """The cells of a part of the table, seed outermost; ``seeds`` of each size, default the table's own."""
        told = {size: self.fewer.get(size, self.seeds) if seeds is None else seeds for size in sizes}
        return [
            Cell(arm, trial, size, seed)
            for seed in range(max(told.values(), default=0))
            for trial in trials
            for size in sizes
            for arm in arms
            if seed < told[size] and self.can(arm, size)
        ]

    def can(self, arm: str, size: str) -> bool:
        """Whether a method makes a size at all: some cannot grow, WAVE makes whole tiles. Others leave the cell out."""
        told = self.sources[self.source_of(arm)]
        recipe = _recipe(self.pretrain, tuple(overrides_of(told)) if isinstance(told, list) else ())
        target, method = Size.parse(size, recipe.model.head_dim), self.arms[arm].method
        larger = target.depth > recipe.model.depth or target.heads > recipe.model.heads
        return (NAMES[method].grows or not larger) and (method != "wave" or target.width % resolve(recipe).tile == 0)

    def checks(self, trial: Trial) -> bool:
        """Whether a classifier is tested before it is fine-tuned too."""
        return self.costs and trial.task == "classify"

    def source_of(self, arm: str) -> str:
        """The source of an arm; one without any takes its shape from the first."""
        return self.arms[arm].source or next(iter(self.sources))


@cache
def _recipe(name: str, overrides: tuple[str, ...]) -> PretrainRecipe:
    return load_recipe(PretrainRecipe, name, overrides)


def overrides_of(told: list[str]) -> list[str]:
    """Those that a recipe knows: ``init_from=@NAME`` and ``teacher=@NAME`` name another source of the table."""
    return [value for value in told if "=@" not in value]


TABLE1 = ("L6H6", "L12H3", "L3H12", "L12H6", "L6H12")
BEYOND = "L16H14"  # deeper and wider than the source
FEWER = {"L3H12": 2, "L6H12": 2, BEYOND: 1}
# design 7; the other rows of ARMS stand in table init
TABLE1_ARMS = arms(
    "random",
    "weight_selection",
    "isomorphic",
    "dmae",
    "wave",
    "wave_supervised",
    "sweet_prefix",
    "sweet_learned",
    "sweet",
    "sweet_tiles",
    "sweet_fitted",
)


def rate_arms(lr: float) -> dict[str, Arm]:
    """What every method of table1 is asked at one size before its rate is frozen: the table's own (``lr``), half of it,
    and no decay by layer."""
    whole, half = 1000 * lr, 500 * lr
    asked: dict[str, dict[str, Any]] = {"": {}, f"@{half:g}": {"lr": lr / 2}, f"@{whole:g}-flat": {"layer_decay": 1.0}}
    return {f"{name}{at}": replace(arm, **told) for name, arm in TABLE1_ARMS.items() for at, told in asked.items()}


MICRO_FINETUNE: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 64,
    "lr": 4e-3,  # with its decay by layer the best for three kinds of start, docs/log.md
    "checkpoint_every": 100,
    "label_smoothing": 0.0,
    "workers": 0,
    "optim": {"layer_decay": 0.75, "compile": True},  # what one cell has compiled, the next takes from the disk
    "data": {"labels": 5000, "augment": "crop", "val_split": "test"},
}
NANO_FINETUNE: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "lr": 2e-3,
    "checkpoint_every": 100,
    "label_smoothing": 0.0,
    "workers": 0,
    "data": {"labels": 5000, "augment": "crop", "val_split": "test"},
}
# batch, rate and decay are the paper's
SMALL_FINETUNE: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 1024,
    "lr": 2e-3,
    "checkpoint_every": 200,
    "optim": {"layer_decay": 0.75},
    "data": {"augment": "rrc", "val_split": "val"},
}
# methods 1.2
PAPER_FINETUNE: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 1024,
    "lr": 2e-3,
    "checkpoint_every": 1251,
    "workers": 12,
    "mixup": 0.8,
    "cutmix": 1.0,
    "optim": {"warmup": 1 / 6, "layer_decay": 0.75, "clip": None},
    "data": {"augment": "rrc", "val_split": "val"},
}
MICRO_SOURCES = sources(template=3.58, scaled=4.82, taught=0.88)
SMALL_SOURCES = sources(template=98.8, scaled=131.7, taught=25.7)
# the paper's template scales its width in training; a rival's source does not, and gets as many FLOPs
UNSCALED = "width.mode=none"
PAPER_SOURCES: dict[str, Recipe] = {
    "dense": [DENSE, UNSCALED, "epochs=386"],
    "template": [],
    "kronecker": [KRONECKER, UNSCALED, "epochs=386"],
    "converted": Converted("dense"),
    "taught": FineTuned("dense"),
    "kronecker.taught": [*TAUGHT, UNSCALED, "epochs=159"],
}


def transfer(name: str, images: int, *, epochs: float, **keys: Any) -> Trial:
    """A data set of Table 3 with so many training images; ``keys`` of its data, beside the table's."""
    return Trial(data=name, finetune={"epochs": epochs, "data": {"val_split": "test"} | keys}, images=images)


# the budgets of the seven are methods 11
MICRO_TRANSFER = (
    transfer("flowers102", 1020, epochs=25, labels=None),
    transfer("tiny-imagenet-100", 50_000, epochs=5, labels=5000, val_split="val"),
)
SMALL_TRANSFER = (transfer("flowers102", 1020, epochs=100), transfer("cifar10", 50_000, epochs=10))
PAPER_TRANSFER = tuple(
    Trial(
        data=name,
        finetune={"epochs": epochs, "batch_size": batch, "lr": 5e-4 * batch / 512, "data": {"val_split": split}},
        images=images,
    )
    for name, images, epochs, batch, split in (
        ("flowers102", 1020, 300, 128, "test"),
        ("cub200", 5994, 300, 128, "test"),
        ("cars", 8144, 300, 128, "test"),
        ("cifar10", 50_000, 100, 512, "test"),
        ("cifar100", 50_000, 100, 512, "test"),
        ("food101", 75_750, 50, 512, "val"),
        ("inat2019", 265_213, 50, 512, "val"),
    )
)


# some minutes each on one core; the tasks' own recipes but for their length
TASK_TRIALS = (
    Trial(),
    Trial("detect", "bccd", {"max_steps": 60, "checkpoint_every": 20}, img_size=256, patch_size=8),
    Trial("detect", "penn-fudan", {"max_steps": 60, "checkpoint_every": 20}, img_size=256, patch_size=8),
    Trial("segment", "camvid", {"max_steps": 150, "checkpoint_every": 50}, img_size=160, patch_size=8),
    Trial(
        "generate",
        None,
        {
            "max_steps": 60,
            "checkpoint_every": 20,
            "data": {"val_split": "test"},
            "head": {"steps": 5, "samples": 1000},
        },
    ),
)
# Gains, heads and units are chosen by classification (docs/log.md): the other tasks are asked as well.
PLAIN = {
    "sweet_rms": Arm(
        "sweet",
        "converted",
        {"gains": "rms", "inner": "prefix"},
        about="principal order as it was first tried",
    )
}
TASK_ARMS = arms("random", "weight_selection") | PLAIN | arms("sweet")


def _tables(
    name: str,
    finetune: dict[str, Any],
    told: dict[str, Recipe],
    transfers: tuple[Trial, ...],
    fewer: dict[str, int],
    before: tuple[str, ...],
) -> dict[tuple[str, str], Protocol]:
    """Tables that are the same in two protocols but for recipe and budgets; table1 takes cells over from ``before``."""

    def table(sizes: tuple[str, ...], rows: dict[str, Arm], **more: Any) -> Protocol:
        return Protocol(name, name, sizes, rows, 3, finetune, told, fewer, **more)

    return {
        ("table1", name): table((*TABLE1, BEYOND), TABLE1_ARMS, borrows=before),
        ("init", name): table(("L6H6", "L12H3", "L3H12"), ARMS, borrows=("table1",), costs=True),
        ("rates", name): Protocol(
            name, name, ("L6H6",), rate_arms(finetune["lr"]), 1, finetune, told, borrows=("init", "table1")
        ),
        ("table3", name): table(("L6H6",), TABLE1_ARMS, trials=transfers),
        ("table4", name): table(("L3H5", "L4H4", "L5H3"), CONSTRAINTS, ours="tucker_principal", ablation=True),
        ("table5", name): table(("L3H3", "L3H4", "L3H5"), ABLATIONS, ours="sweet_principal", ablation=True),
        ("luck", name): table(("L6H6", "L12H3"), SECOND_SOURCE, ours="sweet_learned", borrows=("table1",)),
    }


def _paper(sizes: tuple[str, ...], **more: Any) -> Protocol:
    name, images = "vit_b16_in1k", 1_281_167
    return Protocol("paper", name, sizes, TABLE1_ARMS, 1, PAPER_FINETUNE, PAPER_SOURCES, images=images, **more)


PROTOCOLS = {  # reports keep this order
    **_tables("micro", MICRO_FINETUNE, MICRO_SOURCES, MICRO_TRANSFER, FEWER, ("init", "rates", "tasks")),
    ("tasks", "micro"): Protocol(
        name="micro",
        pretrain="micro",
        sizes=("L6H6", "L12H3"),
        arms=TASK_ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
        sources=MICRO_SOURCES,
        trials=TASK_TRIALS,
        ours="sweet_rms",  # until the other tasks are measured with today's defaults
        borrows=("table1",),
    ),
    **_tables("small", SMALL_FINETUNE, SMALL_SOURCES, SMALL_TRANSFER, {}, ("rates", "init")),
    ("table1", "paper"): _paper((*TABLE1, BEYOND)),
    ("table3", "paper"): _paper(("L6H6",), trials=PAPER_TRANSFER),
    ("study", "nano"): Protocol(
        name="nano",
        pretrain="nano",
        sizes=("L4H4", "L8H2", "L2H8"),
        arms=STUDY_ARMS,
        seeds=2,
        finetune=NANO_FINETUNE,
        sources=STUDY_SOURCES,
        ours="turned1.loudest.decay0.75@4",
    ),
    ("quickstart", "micro"): Protocol(
        name="quickstart",
        pretrain="quickstart",
        sizes=("L6H6", "L6H3", "L3H6", "L3H3"),
        arms={"random": ARMS["random"], "sweet": ARMS["sweet_learned"]},
        seeds=3,
        finetune={
            "epochs": 10,
            "batch_size": 64,
            "lr": 4e-3,
            "checkpoint_every": 1000,
            "label_smoothing": 0.0,
            "workers": 0,
            "optim": {"layer_decay": 0.75},
            "data": {"labels": 1000, "augment": "none", "val_split": "test"},
        },
        sources={"template": []},
        write_models=True,
        images=6_000,
    ),
}
