"""The tables as data: recipe, sizes, seeds and fine-tuning budget of each. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sweet.errors import UserError

from .arms import (
    ABLATIONS,
    ARMS,
    CONSTRAINTS,
    DENSE,
    FACTORED,
    KRONECKER,
    SCALED,
    TAUGHT,
    Arm,
    Converted,
    FineTuned,
    Recipe,
    Switches,
    arms,
    own_sources,
    sources,
)
from .protocol import Overrides, Protocol, Trial
from .real import REAL
from .sweeps import rate_arms, setting_arms

HELD_OUT = 5000  # training images that settings are chosen on
OLD_TABLES = {"rates": "learning_rates"}  # names of before, for the command line


@dataclass(frozen=True)
class Sizes:
    """The sizes of the tables of a protocol: ``first`` have all rows and replicates, ``more`` one replicate.

    Settings are chosen at the first two of ``first``. ``beyond`` is deeper and wider than the source.
    """

    first: tuple[str, str, str]
    more: tuple[str, str]
    beyond: str
    constraints: tuple[str, str, str]
    ablations: tuple[str, str, str]

    @property
    def fewer_seeds(self) -> dict[str, int]:
        """{size: replicates} of those that have one."""
        return dict.fromkeys((*self.more, self.beyond), 1)

    @property
    def table1(self) -> tuple[str, ...]:
        """The columns of table 1."""
        return (*self.first, *self.more, self.beyond)


# half of both, a third or quarter of the width, of the depth; of sources of 12 and of 6 layers and heads
SIZES = Sizes(
    first=("L6H6", "L12H3", "L3H12"),
    more=("L12H6", "L6H12"),
    beyond="L16H14",
    constraints=("L3H5", "L4H4", "L5H3"),
    ablations=("L3H3", "L3H4", "L3H5"),
)
NANO_SIZES = Sizes(
    first=("L3H3", "L6H2", "L2H6"),
    more=("L6H3", "L3H6"),
    beyond="L8H8",
    constraints=("L2H4", "L3H3", "L4H2"),
    ablations=("L2H2", "L2H3", "L2H4"),
)
CONDITIONED = (
    "weight_selection_conditioned",
    "isomorphic_conditioned",
    "wave_conditioned",
    "sweet_paper_conditioned",
    "own_mae",
    "own_mae_conditioned",
)
# issue 21 E; the other rows of ARMS are in table init
TABLE1_ARMS = arms(
    "random",
    "weight_selection",
    "isomorphic",
    "dmae",
    "wave",
    "wave_supervised",
    *CONDITIONED,
    "sweet_paper",
    "sweet_paper_fitted",
    "sweet_tucker",
    "sweet",
    "sweet_fitted",
)
# An optimiser that finds coordinates of its own gives plain starts what conditioning gives them (docs/log.md): what of
# our lead is left by it, each row at its best rate?
MUON = "optim.name=muon"
MUON_ARMS = arms(
    "random",
    "weight_selection",
    "weight_selection_conditioned",
    "own_mae",
    "own_mae_conditioned",
    "sweet_paper",
    "sweet",
)
CONDITION: Switches = {"condition": "true"}  # by the target's own moments; baselines have rows of their own with it


def settings_to_try(dmae_steps: int) -> dict[str, list[Switches]]:
    """Settings of each method besides its rate of fine-tuning: those that it has.

    At most as many for ours as for the baseline with the most. ``dmae_steps`` is the longer trial of DMAE, of two or
    three times its share of a pre-training.
    """
    return {
        "weight_selection": [
            {"layers": "first"},
            *({"rule": rule, "layers": layers} for rule in ("uniform", "whole_heads") for layers in ("even", "first")),
        ],
        "isomorphic": [{"layers": "first"}],
        "dmae": [{"lr": 7.5e-4}, {"lr": 3e-3}, {"steps": dmae_steps}, {"layer": 0.5}, {"layer": 1.0}],
        "wave": [{"layers": "first"}, {"lr": 3e-4}, {"lr": 3e-3}, {"steps": 400}],
        "wave_supervised": [{"layers": "first"}, {"lr": 3e-3}, {"steps": 400}],
        "sweet_paper": [{"layers": "first"}, {"gains": "none"}],
        "sweet_paper_fitted": [{"layers": "first"}, {"lr": 3e-4}, {"lr": 3e-3}, {"steps": 400}],
        "sweet": [{"layers": "first"}, {"gains": "rms"}, CONDITION, SCALED, {"layers": "first", **SCALED}],
        "sweet_fitted": [{"layers": "first"}, {"lr": 3e-4}, {"lr": 3e-3}, {"steps": 400}, CONDITION],
        **{row: [SCALED] for row in CONDITIONED if row.endswith("_conditioned")},
    }


# 4e-3 with its decay by layer was the best for three ways to start, docs/log.md. What one cell has compiled, the next
# takes from the disk.
MICRO_FINETUNE = tuple(
    "epochs=3 batch_size=64 lr=4e-3 checkpoint_every=100 label_smoothing=0.0 workers=0 optim.layer_decay=0.75 "
    "optim.compile=true data.labels=5000 data.augment=crop data.val_split=test".split()
)
# compiling would take longer than a cell
NANO_FINETUNE = (*MICRO_FINETUNE, "optim.compile=false")
# batch, rate and decay are the paper's; 5,000 training images have no label, and settings are chosen by them
SMALL_FINETUNE = tuple(
    "epochs=30 batch_size=1024 lr=2e-3 checkpoint_every=200 optim.layer_decay=0.75 data.labels=45000 "
    "data.augment=rrc data.val_split=val".split()
)
# the paper states the epochs alone; the rest is how MAE fine-tunes a ViT-B (arXiv 2111.06377, table 9)
PAPER_FINETUNE = tuple(
    "epochs=30 batch_size=1024 lr=2e-3 checkpoint_every=1251 workers=12 mixup=0.8 cutmix=1.0 optim.layer_decay=0.75 "
    f"optim.warmup={1 / 6} optim.clip=null data.augment=rrc data.val_split=val".split()
)
QUICKSTART_FINETUNE = tuple(
    "epochs=10 batch_size=64 lr=4e-3 checkpoint_every=1000 label_smoothing=0.0 workers=0 optim.layer_decay=0.75 "
    "data.labels=1000 data.augment=none data.val_split=test".split()
)
NANO_SOURCES = sources(template=2.4, scaled=2.76, taught=0.78) | own_sources(*NANO_SIZES.first)
MICRO_SOURCES = sources(template=3.58, scaled=4.82, taught=0.88) | own_sources(*SIZES.first)
SMALL_SOURCES = sources(template=98.8, scaled=131.7, taught=25.7) | own_sources(*SIZES.first)
# the paper's template scales its width in training; a baseline's source does not, and gets as many FLOPs
UNSCALED = "width.mode=none"
PAPER_SOURCES: dict[str, Recipe] = {
    "dense": [DENSE, UNSCALED, "epochs=386"],
    "template": [FACTORED, UNSCALED, "epochs=383"],
    "template.literal": [],
    "kronecker": [KRONECKER, UNSCALED, "epochs=386"],
    "tiles": Converted("kronecker"),
    "taught": FineTuned("dense"),
    "kronecker.taught": [*TAUGHT, UNSCALED, "epochs=159"],
    **{name: [*made, UNSCALED, "epochs=386"] for name, made in own_sources(*SIZES.first).items()},
}


def transfer(name: str, images: int, epochs: int, *more: str) -> Trial:
    """A data set of Table 3 with so many training images; ``more`` overrides of the table's fine-tuning."""
    return Trial(data=name, finetune=(f"epochs={epochs}", "data.val_split=test", *more), images=images)


MICRO_TRANSFER = (
    transfer("flowers102", 1020, 25, "data.labels=null"),
    transfer("tiny-imagenet-100", 50_000, 5, "data.labels=5000", "data.val_split=val"),
)
SMALL_TRANSFER = tuple(
    transfer(name, images, epochs, "data.labels=null")
    for name, images, epochs in (("flowers102", 1020, 100), ("cifar10", 50_000, 10))
)
# the seven sets of the paper's Table 3; their budgets are ours, for it states none
PAPER_TRANSFER = tuple(
    transfer(name, images, epochs, f"batch_size={batch}", f"lr={5e-4 * batch / 512}", f"data.val_split={split}")
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
    Trial("detect", "bccd", ("max_steps=60", "checkpoint_every=20"), img_size=256, patch_size=8),
    Trial("detect", "penn-fudan", ("max_steps=60", "checkpoint_every=20"), img_size=256, patch_size=8),
    Trial("segment", "camvid", ("max_steps=150", "checkpoint_every=50"), img_size=160, patch_size=8),
    Trial(
        "generate",
        None,
        ("max_steps=60", "checkpoint_every=20", "data.val_split=test", "head.steps=5", "head.samples=1000"),
    ),
)
TASK_ARMS = arms("random", "weight_selection", "sweet_paper", "sweet")


def _tables(
    name: str,
    sizes: Sizes,
    finetune: Overrides,
    made: dict[str, Recipe],
    transfers: tuple[Trial, ...],
    dmae_steps: int,
) -> dict[tuple[str, str], Protocol]:
    """Tables that are the same in several protocols but for recipe, sizes and budgets."""
    swept, only_first = sizes.first[:2], dict.fromkeys(CONDITIONED, sizes.first)

    def table(
        columns: tuple[str, ...], rows: dict[str, Arm], *, seeds: int = 3, by: Overrides = finetune, **more: Any
    ) -> Protocol:
        return Protocol(name, name, columns, rows, seeds, by, made, sizes.fewer_seeds, **more)

    def sweep(rows: dict[str, Arm], **more: Any) -> Protocol:
        return table(swept, rows, seeds=1, validation=HELD_OUT, partial=dict.fromkeys(rows, swept), **more)

    settings = sweep(setting_arms(TABLE1_ARMS, settings_to_try(dmae_steps)), main="sweet@default")
    rates = sweep(rate_arms(TABLE1_ARMS), main="sweet@4", chosen_by={"settings": settings})
    chosen = {"settings": settings, "learning_rates": rates}
    by_muon = (*finetune, MUON)
    muon_rates = sweep(rate_arms(MUON_ARMS), by=by_muon, main="sweet@4", chosen_by={"settings": settings})
    chosen_muon = {"settings": settings, "muon_rates": muon_rates}
    return {
        ("settings", name): settings,
        ("learning_rates", name): rates,
        ("table1", name): table(sizes.table1, TABLE1_ARMS, partial=only_first, chosen_by=chosen),
        # tested before fine-tuning, as table1 is not
        ("init", name): table(sizes.first, ARMS, seeds=1, shows_costs=True, chosen_by=chosen),
        ("muon_rates", name): muon_rates,
        ("muon", name): table(sizes.first, MUON_ARMS, by=by_muon, chosen_by=chosen_muon),
        ("table3", name): table(sizes.first[:1], TABLE1_ARMS, trials=transfers, chosen_by=chosen),
        ("table4", name): table(sizes.constraints, CONSTRAINTS, main="tucker_principal", ablation=True),
        ("table5", name): table(sizes.ablations, ABLATIONS, main="literal", ablation=True),
    }


def _paper(sizes: tuple[str, ...], **more: Any) -> Protocol:
    name, images = "vit_b16_in1k", 1_281_167
    return Protocol(
        "paper",
        name,
        sizes,
        TABLE1_ARMS,
        1,
        PAPER_FINETUNE,
        PAPER_SOURCES,
        partial=dict.fromkeys(CONDITIONED, SIZES.first),
        images=images,
        **more,
    )


PROTOCOLS = {  # by table and protocol; reports keep this order
    **_tables("nano", NANO_SIZES, NANO_FINETUNE, NANO_SOURCES, MICRO_TRANSFER, 624),
    **_tables("micro", SIZES, MICRO_FINETUNE, MICRO_SOURCES, MICRO_TRANSFER, 624),
    ("tasks", "micro"): Protocol(
        name="micro",
        pretrain="micro",
        sizes=SIZES.first[:2],
        arms=TASK_ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
        sources=MICRO_SOURCES,
        trials=TASK_TRIALS,
        borrows=("table1",),
    ),
    **_tables("small", SIZES, SMALL_FINETUNE, SMALL_SOURCES, SMALL_TRANSFER, 15_624),
    **REAL,
    ("table1", "paper"): _paper(SIZES.table1),
    ("table3", "paper"): _paper(SIZES.first[:1], trials=PAPER_TRANSFER),
    ("quickstart", "micro"): Protocol(
        name="quickstart",
        pretrain="quickstart",
        sizes=("L6H6", "L6H3", "L3H6", "L3H3"),
        arms={"random": ARMS["random"], "sweet": ARMS["sweet_tucker"]},
        seeds=3,
        one_source=True,
        finetune=QUICKSTART_FINETUNE,
        sources={"template": []},
        write_models=True,
        images=6_000,
    ),
}


def find(table: str, protocol: str) -> tuple[str, Protocol]:
    """A table's name of today and its protocol, by the names of the command line, old ones included.

    Raises UserError with those that there are.
    """
    name = OLD_TABLES.get(table, table)
    if (name, protocol) not in PROTOCOLS:
        known = ", ".join(f"{n} --protocol {p}" for n, p in PROTOCOLS)
        hint = "; the study is experiments/study.py" if table == "study" else ""
        raise UserError(f"bench {table} --protocol {protocol}: unknown, there are: {known}{hint}")
    return name, PROTOCOLS[name, protocol]
