"""The tables as data (design section 7): recipe, sizes, seeds and fine-tuning budget of each. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sweet.errors import UserError

from .arms import (
    ABLATIONS,
    ARMS,
    CONSTRAINTS,
    DENSE,
    FACTORED,
    KRONECKER,
    OWN_RANKS,
    TAUGHT,
    Arm,
    Checkpoint,
    Converted,
    FineTuned,
    Recipe,
    Switches,
    arms,
    conditioned,
    ours,
    own_sources,
    sources,
)
from .protocol import Overrides, Protocol, Trial
from .sweeps import rate_arms, setting_arms

OLD_TABLES = {"rates": "learning_rates"}  # names of before, for the command line

FIRST = ("L6H6", "L12H3", "L3H12")  # three replicates, and all rows
TABLE1 = (*FIRST, "L12H6", "L6H12")
BEYOND = "L16H14"  # deeper and wider than the source
FEWER = {"L12H6": 1, "L6H12": 1, BEYOND: 1}
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
ONLY_FIRST = dict.fromkeys(CONDITIONED, FIRST)
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
# Settings of each method besides its rate of fine-tuning: as many trials for baselines as for ours.
SETTINGS: dict[str, list[Switches]] = {
    "weight_selection": [
        {"layers": "first"},
        *({"rule": rule, "layers": layers} for rule in ("uniform", "whole_heads") for layers in ("even", "first")),
    ],
    "isomorphic": [{"layers": "first"}],
    "dmae": [{"lr": 7.5e-4}, {"lr": 3e-3}, {"steps": 624}, {"layer": 0.5}, {"layer": 1.0}],
    "wave": [{"layers": "first"}, {"lr": 3e-4}, {"lr": 3e-3}, {"steps": 400}],
    "wave_supervised": [{"layers": "first"}, {"lr": 3e-3}, {"steps": 400}],
    "sweet_paper": [{"layers": "first"}, {"gains": "none"}],
    "sweet_paper_fitted": [{"layers": "first"}, {"lr": 3e-4}, {"lr": 3e-3}, {"steps": 400}],
    "sweet": [{"layers": "first"}, {"gains": "rms"}],
    "sweet_fitted": [{"layers": "first"}, {"lr": 3e-4}, {"lr": 3e-3}, {"steps": 400}],
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
MICRO_SOURCES = sources(template=3.58, scaled=4.82, taught=0.88) | own_sources(*FIRST)
SMALL_SOURCES = sources(template=98.8, scaled=131.7, taught=25.7) | own_sources(*FIRST)
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
    **{name: [*made, UNSCALED, "epochs=386"] for name, made in own_sources(*FIRST).items() if isinstance(made, list)},
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
TASK_ARMS = arms("random", "weight_selection", "sweet_paper", "sweet")


def _tables(
    name: str,
    finetune: Overrides,
    made: dict[str, Recipe],
    transfers: tuple[Trial, ...],
    held: int,
) -> dict[tuple[str, str], Protocol]:
    """Tables that are the same in two protocols but for recipe and budgets."""

    def table(sizes: tuple[str, ...], rows: dict[str, Arm], **more: Any) -> Protocol:
        return Protocol(name, name, sizes, rows, 3, finetune, made, FEWER, **more)

    def sweep(rows: dict[str, Arm], **more: Any) -> Protocol:
        partial = {row: ("L6H6", "L12H3") for row in rows}
        return replace(table(("L6H6", "L12H3"), rows, validation=held, **more), seeds=1, partial=partial)

    settings = sweep(setting_arms(TABLE1_ARMS, SETTINGS), main="sweet@default")
    rates = sweep(rate_arms(TABLE1_ARMS), main="sweet@4", chosen_by={"settings": settings})
    chosen = {"settings": settings, "learning_rates": rates}
    table1 = table((*TABLE1, BEYOND), TABLE1_ARMS, partial=ONLY_FIRST, chosen_by=chosen)
    by_muon = (*finetune, MUON)
    muon_rates = sweep(rate_arms(MUON_ARMS), main="sweet@4", chosen_by={"settings": settings})
    muon_rates = replace(muon_rates, finetune=by_muon)
    muon = table(FIRST, MUON_ARMS, chosen_by={"settings": settings, "muon_rates": muon_rates})
    constraints = {"main": "tucker_principal", "ablation": True}
    return {
        ("settings", name): settings,
        ("learning_rates", name): rates,
        ("table1", name): table1,
        ("init", name): replace(table(FIRST, ARMS, borrows=("table1",), shows_costs=True, chosen_by=chosen), seeds=1),
        ("muon_rates", name): muon_rates,
        ("muon", name): replace(muon, finetune=by_muon),
        ("table3", name): table(("L6H6",), TABLE1_ARMS, trials=transfers, chosen_by=chosen),
        ("table4", name): table(("L3H5", "L4H4", "L5H3"), CONSTRAINTS, **constraints),
        ("table5", name): table(("L3H3", "L3H4", "L3H5"), ABLATIONS, main="literal", ablation=True),
    }


def _paper(sizes: tuple[str, ...], **more: Any) -> Protocol:
    name, images = "vit_b16_in1k", 1_281_167
    return Protocol(
        "paper", name, sizes, TABLE1_ARMS, 1, PAPER_FINETUNE, PAPER_SOURCES, partial=ONLY_FIRST, images=images, **more
    )


# The second scale (design 7): a checkpoint that somebody else trained, three fine-tuning seeds.
REAL_FINETUNE = tuple(
    "epochs=15 batch_size=64 lr=1e-3 checkpoint_every=100 label_smoothing=0.0 workers=0 optim.layer_decay=0.75 "
    "data.labels=2000 data.augment=crop data.val_split=test".split()
)
REAL_SOURCES: dict[str, Recipe] = {
    "checkpoint": Checkpoint(
        ("model.family=vit", "model.heads=6", "model.patch_size=14", "data.img_size=98", *OWN_RANKS)
    ),
    "template": Converted("checkpoint"),
}
FLOWERS = Trial(
    data="flowers102",
    finetune=("epochs=30", "data.labels=null"),
    validation=("data.val_split=val",),
    img_size=98,
    images=1020,
)
REAL_TRIALS = (
    FLOWERS,
    Trial(data="cifar10", img_size=56, images=50_000),
    Trial(data="tiny-imagenet-100", finetune=("data.val_split=val",), img_size=70, images=50_000),
)


def _selected(rule: str, layers: str, about: str) -> Arm:
    return Arm("weight_selection", "checkpoint", {"rule": rule, "layers": layers}, about=about)


SELECTED = _selected("consecutive", "even", "first channels, even layers")
REAL_ARMS = {
    "random": ARMS["random"],
    "weight_selection_uniform": _selected("uniform", "even", "evenly spaced channels, the released rule; even layers"),
    "weight_selection_uniform_first": _selected("uniform", "first", "the released rule; first layers"),
    "weight_selection": SELECTED,
    "weight_selection_conditioned": conditioned(SELECTED),
    "isomorphic": Arm("isomorphic", "checkpoint", about="pruned by Taylor scores of its own features"),
    "distilled_selected": Arm(
        "distilled",
        "checkpoint",
        {"start": "weight_selection"},
        about="first channels; all weights then learn the checkpoint's features, 500 steps of 128",
    ),
    "distilled": ours("distilled", "template", about="sweet; the same 500 steps"),
    "sweet": ours("sweet", "template", about="principal order, equal gains, highest-energy heads"),
    "sweet_fitted": ours("sweet_fitted", "template", about="sweet, its scalers then fitted on unlabelled images"),
    "checkpoint": Arm(
        "weight_selection", "checkpoint", {"rule": "consecutive"}, role="reference", about="the whole checkpoint"
    ),
}


def _real() -> dict[tuple[str, str], Protocol]:
    """Table ``real`` and the sweeps that choose its settings, at L6H3 on one set."""
    cut, whole = ("L6H3", "L12H3", "L6H6"), "L12H6"
    partial: dict[str, tuple[str, ...]] = dict.fromkeys(REAL_ARMS, cut)
    partial |= {"distilled": cut[:2], "distilled_selected": cut[:2], "checkpoint": (whole,)}

    def table(sizes: tuple[str, ...], rows: dict[str, Arm], **more: Any) -> Protocol:
        return Protocol(
            "real", "vit_b16_in1k", sizes, rows, 3, REAL_FINETUNE, REAL_SOURCES, {"L6H6": 1, whole: 1},
            one_source=True, **more,
        )  # fmt: skip

    def sweep(rows: dict[str, Arm], **more: Any) -> Protocol:
        return replace(table(cut[:1], rows, trials=(FLOWERS,), validation=1020, **more), seeds=1)

    rules: list[Switches] = [{"rule": "uniform"}, {"rule": "uniform", "layers": "first"}]
    settings = sweep(
        setting_arms(REAL_ARMS, {"weight_selection_conditioned": rules}), main="weight_selection_conditioned@default"
    )
    rated = {name: arm for name, arm in REAL_ARMS.items() if name != "checkpoint"}
    rates = sweep(rate_arms(rated), main="sweet@1", chosen_by={"settings": settings})
    return {
        ("settings", "real"): settings,
        ("learning_rates", "real"): rates,
        ("real", "real"): table(
            (*cut, whole), REAL_ARMS, trials=REAL_TRIALS, partial=partial,
            chosen_by={"settings": settings, "learning_rates": rates},
        ),
    }  # fmt: skip


PROTOCOLS = {  # by table and protocol; reports keep this order
    **_tables("micro", MICRO_FINETUNE, MICRO_SOURCES, MICRO_TRANSFER, 5000),
    ("tasks", "micro"): Protocol(
        name="micro",
        pretrain="micro",
        sizes=("L6H6", "L12H3"),
        arms=TASK_ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
        sources=MICRO_SOURCES,
        trials=TASK_TRIALS,
        borrows=("table1",),
    ),
    **_tables("small", SMALL_FINETUNE, SMALL_SOURCES, SMALL_TRANSFER, 5000),
    **_real(),
    ("table1", "paper"): _paper((*TABLE1, BEYOND)),
    ("table3", "paper"): _paper(("L6H6",), trials=PAPER_TRANSFER),
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
