"""Protocols (design section 7): recipe, sizes, seeds and fine-tuning budget of each table. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .arms import ARMS, SOURCES, Arm, Recipe, arms
from .studies import STUDY_ARMS, STUDY_SOURCES


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
    layers: str = "even"
    ours: str = "sweet"  # the arm that the others are compared with
    borrows: tuple[str, ...] = ()
    costs: bool = False  # the table also tells what initialising costs, and gives before any fine-tuning
    write_models: bool = False  # model folders of every size beside the results


TABLE1 = ("L6H6", "L12H3", "L3H12", "L12H6", "L6H12")
TABLE1_ARMS = arms("random", "weight_selection", "principal_slice", "sweet_prefix", "sweet")
MICRO_FINETUNE: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "lr": 2e-3,
    "checkpoint_every": 100,
    "label_smoothing": 0.0,
    "workers": 0,
    "data": {"labels": 5000, "augment": "crop", "val_split": "test"},
}

PROTOCOLS = {
    ("table1", "micro"): Protocol(
        name="micro",
        pretrain="micro",
        sizes=TABLE1,
        arms=TABLE1_ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
    ),
    ("init", "micro"): Protocol(
        name="micro",
        pretrain="micro",
        sizes=("L6H6", "L12H3", "L3H12"),
        arms=ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
        borrows=("table1",),
        costs=True,
    ),
    ("study", "nano"): Protocol(
        name="nano",
        pretrain="nano",
        sizes=("L4H4", "L8H2", "L2H8"),
        arms=STUDY_ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
        sources=STUDY_SOURCES,
        ours="tucker2.principal@2",
    ),
    ("table1", "small"): Protocol(
        name="small",
        pretrain="small",
        sizes=TABLE1,
        arms=TABLE1_ARMS,
        seeds=3,
        finetune={
            "epochs": 30,
            "batch_size": 256,
            "lr": 1e-3,
            "checkpoint_every": 500,
            "data": {"augment": "rrc", "val_split": "val"},
        },
    ),
    ("quickstart", "micro"): Protocol(
        name="quickstart",
        pretrain="quickstart",
        sizes=("L6H6", "L6H3", "L3H6", "L3H3"),
        arms=arms("random", "sweet"),
        seeds=3,
        finetune={
            "epochs": 10,
            "batch_size": 64,
            "lr": 2e-3,
            "checkpoint_every": 1000,
            "label_smoothing": 0.0,
            "workers": 0,
            "data": {"labels": 1000, "augment": "none", "val_split": "test"},
        },
        sources={"template": []},
        write_models=True,
    ),
}
