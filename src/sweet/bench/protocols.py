"""Protocols (design section 7): recipe, sizes, seeds and fine-tuning budget of each table. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One row of a table: an initialiser, how it is called, and which source it starts from."""

    method: str
    source: str | None = None  # a key of Protocol.sources
    switches: dict[str, Any] = field(default_factory=dict)  # all but ``layers``, which a table has in common


ARMS = {
    "random": Arm("random"),
    "mimetic": Arm("mimetic"),
    "weight_selection": Arm("weight_selection", "dense", {"rule": "consecutive"}),
    "weight_selection_uniform": Arm("weight_selection", "dense", {"rule": "uniform"}),
    "weight_selection_heads": Arm("weight_selection", "dense", {"rule": "whole_heads"}),
    "isomorphic": Arm("isomorphic", "dense"),
    "tleg": Arm("tleg", "dense"),
    "tleg_trained": Arm("tleg", "linear"),
    "wave": Arm("wave", "kronecker"),
    "dmae": Arm("dmae", "dense"),
    "principal_slice": Arm("principal_slice", "dense"),
    "sweet_prefix": Arm("sweet", "template", {"order": "prefix"}),
    "sweet": Arm("sweet", "template", {"order": "principal"}),
    "sweet_fitted": Arm("sweet_fitted", "template"),
}

# Overrides of a table's recipe; of these only the sources of the arms that are asked for are learned.
SOURCES = {
    "template": [],
    "dense": ["template.constraint=none"],
    "linear": ["template.constraint=linear"],
    "kronecker": ["template.constraint=kronecker"],
}


@dataclass(frozen=True)
class Protocol:
    """``pretrain`` names the recipe; ``sources`` are overrides that make each source from it.

    ``borrows`` names tables of the same protocol whose runs are taken over where they are the same cell.
    """

    name: str
    pretrain: str
    sizes: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: int
    finetune: dict[str, Any]
    sources: dict[str, list[str]] = field(default_factory=lambda: SOURCES)
    layers: str = "even"
    borrows: tuple[str, ...] = ()
    costs: bool = False  # the table also tells what initialising costs, and gives before any fine-tuning
    write_models: bool = False  # model folders of every size beside the results


TABLE1 = ("L6H6", "L12H3", "L3H12", "L12H6", "L6H12")
TABLE1_ARMS = ("random", "weight_selection", "principal_slice", "sweet_prefix", "sweet")
INIT_ARMS = (
    "random",
    "mimetic",
    "weight_selection",
    "weight_selection_uniform",
    "weight_selection_heads",
    "isomorphic",
    "tleg",
    "tleg_trained",
    "wave",
    "dmae",
    "principal_slice",
    "sweet_prefix",
    "sweet",
    "sweet_fitted",
)
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
        arms=INIT_ARMS,
        seeds=2,
        finetune=MICRO_FINETUNE,
        borrows=("table1",),
        costs=True,
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
        arms=("random", "sweet"),
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
