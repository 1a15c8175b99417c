"""The tables as data (design section 7): recipe, sizes, seeds and fine-tuning budget of each. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sweet.errors import UserError
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe

from .arms import (
    ABLATIONS,
    ARMS,
    CONSTRAINTS,
    DENSE,
    KRONECKER,
    SECOND_SOURCE,
    TAUGHT,
    Arm,
    Converted,
    FineTuned,
    Recipe,
    arms,
    ours,
    sources,
)
from .protocol import Overrides, Protocol, Trial

OLD_TABLES = {"luck": "source_seed", "rates": "learning_rates"}  # names of before, for the command line

TABLE1 = ("L6H6", "L12H3", "L3H12", "L12H6", "L6H12")
BEYOND = "L16H14"  # deeper and wider than the source
FEWER = {"L3H12": 2, "L6H12": 2, BEYOND: 1}
# design 7; the other rows of ARMS are in table init
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
    """Every method of table1 at the table's own rate (``lr``), at half of it, and without decay by layer."""
    whole, half = 1000 * lr, 500 * lr
    return {
        f"{name}{ending}": row
        for name, arm in TABLE1_ARMS.items()
        for ending, row in (
            ("", arm),
            (f"@{half:g}", replace(arm, lr=lr / 2)),
            (f"@{whole:g}-flat", replace(arm, layer_decay=1.0)),
        )
    }


# 4e-3 with its decay by layer was the best for three ways to start, docs/log.md. What one cell has compiled, the next
# takes from the disk.
MICRO_FINETUNE = tuple(
    "epochs=3 batch_size=64 lr=4e-3 checkpoint_every=100 label_smoothing=0.0 workers=0 optim.layer_decay=0.75 "
    "optim.compile=true data.labels=5000 data.augment=crop data.val_split=test".split()
)
# batch, rate and decay are the paper's
SMALL_FINETUNE = tuple(
    "epochs=30 batch_size=1024 lr=2e-3 checkpoint_every=200 optim.layer_decay=0.75 data.augment=rrc "
    "data.val_split=val".split()
)
# methods 1.2
PAPER_FINETUNE = tuple(
    "epochs=30 batch_size=1024 lr=2e-3 checkpoint_every=1251 workers=12 mixup=0.8 cutmix=1.0 optim.layer_decay=0.75 "
    f"optim.warmup={1 / 6} optim.clip=null data.augment=rrc data.val_split=val".split()
)
QUICKSTART_FINETUNE = tuple(
    "epochs=10 batch_size=64 lr=4e-3 checkpoint_every=1000 label_smoothing=0.0 workers=0 optim.layer_decay=0.75 "
    "data.labels=1000 data.augment=none data.val_split=test".split()
)
MICRO_SOURCES = sources(template=3.58, scaled=4.82, taught=0.88)
SMALL_SOURCES = sources(template=98.8, scaled=131.7, taught=25.7)
# the paper's template scales its width in training; a baseline's source does not, and gets as many FLOPs
UNSCALED = "width.mode=none"
PAPER_SOURCES: dict[str, Recipe] = {
    "dense": [DENSE, UNSCALED, "epochs=386"],
    "template": [],
    "kronecker": [KRONECKER, UNSCALED, "epochs=386"],
    "converted": Converted("dense"),
    "taught": FineTuned("dense"),
    "kronecker.taught": [*TAUGHT, UNSCALED, "epochs=159"],
}


def transfer(name: str, images: int, epochs: int, *more: str) -> Trial:
    """A data set of Table 3 with so many training images; ``more`` overrides of the table's fine-tuning."""
    return Trial(data=name, finetune=(f"epochs={epochs}", "data.val_split=test", *more), images=images)


MICRO_TRANSFER = (
    transfer("flowers102", 1020, 25, "data.labels=null"),
    transfer("tiny-imagenet-100", 50_000, 5, "data.labels=5000", "data.val_split=val"),
)
SMALL_TRANSFER = (transfer("flowers102", 1020, 100), transfer("cifar10", 50_000, 10))
# the budgets of the seven are methods 11
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
# Gains, heads and units were chosen by classification (docs/log.md): other tasks measure what was tried before as well.
PLAIN = ours("sweet", "converted", {"gains": "rms", "inner": "prefix"}, about="principal order as it was first tried")
TASK_ARMS = arms("random", "weight_selection") | {"sweet_rms": PLAIN} | arms("sweet")


def _tables(
    name: str,
    finetune: Overrides,
    made: dict[str, Recipe],
    transfers: tuple[Trial, ...],
    fewer: dict[str, int],
    before: tuple[str, ...],
) -> dict[tuple[str, str], Protocol]:
    """Tables that are the same in two protocols but for recipe and budgets; table1 takes cells over from ``before``."""

    def table(sizes: tuple[str, ...], rows: dict[str, Arm], **more: Any) -> Protocol:
        return Protocol(name, name, sizes, rows, 3, finetune, made, fewer, **more)

    lr = load_recipe(FinetuneRecipe, None, finetune).lr
    return {
        ("table1", name): table((*TABLE1, BEYOND), TABLE1_ARMS, borrows=before),
        ("init", name): table(("L6H6", "L12H3", "L3H12"), ARMS, borrows=("table1",), shows_costs=True),
        ("learning_rates", name): replace(table(("L6H6",), rate_arms(lr), borrows=("init", "table1")), seeds=1),
        ("table3", name): table(("L6H6",), TABLE1_ARMS, trials=transfers),
        ("table4", name): table(("L3H5", "L4H4", "L5H3"), CONSTRAINTS, main="tucker_principal", ablation=True),
        ("table5", name): table(("L3H3", "L3H4", "L3H5"), ABLATIONS, main="sweet_principal", ablation=True),
        ("source_seed", name): table(("L6H6", "L12H3"), SECOND_SOURCE, main="sweet_learned", borrows=("table1",)),
    }


def _paper(sizes: tuple[str, ...], **more: Any) -> Protocol:
    name, images = "vit_b16_in1k", 1_281_167
    return Protocol("paper", name, sizes, TABLE1_ARMS, 1, PAPER_FINETUNE, PAPER_SOURCES, images=images, **more)


PROTOCOLS = {  # by table and protocol; reports keep this order
    **_tables("micro", MICRO_FINETUNE, MICRO_SOURCES, MICRO_TRANSFER, FEWER, ("init", "learning_rates", "tasks")),
    ("tasks", "micro"): Protocol(
        name="micro",
        pretrain="micro",
        sizes=("L6H6", "L12H3"),
        arms=TASK_ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
        sources=MICRO_SOURCES,
        trials=TASK_TRIALS,
        main="sweet_rms",  # until the other tasks are measured with today's defaults
        borrows=("table1",),
    ),
    **_tables("small", SMALL_FINETUNE, SMALL_SOURCES, SMALL_TRANSFER, {}, ("learning_rates", "init")),
    ("table1", "paper"): _paper((*TABLE1, BEYOND)),
    ("table3", "paper"): _paper(("L6H6",), trials=PAPER_TRANSFER),
    ("quickstart", "micro"): Protocol(
        name="quickstart",
        pretrain="quickstart",
        sizes=("L6H6", "L6H3", "L3H6", "L3H3"),
        arms={"random": ARMS["random"], "sweet": ARMS["sweet_learned"]},
        seeds=3,
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
