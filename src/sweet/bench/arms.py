"""Rows of the tables: initialisers with their switches, and the sources that they start from. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sweet.results.records import Role

Switches = Mapping[str, str | float]


@dataclass(frozen=True)
class Arm:
    """One row of a table: an initialiser with its switches, and which of ``Protocol.sources`` it starts from.

    All methods of a table have one rule for ``layers``, unless an arm's switches have another. ``lr`` and
    ``layer_decay`` are of fine-tuning, where a sweep of the method found other values than the table's.
    """

    method: str
    source: str | None = None
    switches: Switches = field(default_factory=dict)
    lr: float | None = None
    layer_decay: float | None = None
    role: Role = "baseline"
    about: str = field(default="", compare=False)  # for readers of a report


@dataclass(frozen=True)
class Converted:
    """A template made from the source ``of`` by ``sweet convert``; without ``ranks`` nothing is lost.

    ``heal`` are steps of training after the conversion.
    """

    of: str
    ranks: tuple[int, int, int] | None = None
    metric: str = "activations"
    heal: int = 0


@dataclass(frozen=True)
class Rotated:
    """The dense source ``of``, stored in its own principal order, gains folded; the same function."""

    of: str


@dataclass(frozen=True)
class FineTuned:
    """The source ``of`` at its whole size, fine-tuned on the labels of the table as its cells are: a teacher."""

    of: str


Recipe = list[str] | Converted | Rotated | FineTuned

DENSE = "template.constraint=none"
KRONECKER = "template.constraint=kronecker"
FACTORED = "template.learn=factored"  # the paper's way
GELU = "model.family=vit"
SCALED = "width.mode=independent"
TAUGHT = [KRONECKER, "objective=supervised", "teacher=@taught"]

# Overrides of a table's recipe, or made of another. ``init_from=@NAME`` goes on from another of these,
# ``teacher=@NAME`` learns from its answers and the labels of the table. Only sources that a cell needs are learned.
SOURCES: dict[str, Recipe] = {
    "dense": [DENSE],  # the first: arms without a source take its shape
    "template": [FACTORED],
    "linear": ["template.constraint=linear"],
    "kronecker": [KRONECKER],
    "converted": Converted("dense"),
    # the paper's second way to learn WAVE's tiles
    "taught": FineTuned("dense"),
    "kronecker.taught": TAUGHT,
    # once more from another seed: how much of a difference comes from the source's seed
    "template.seed1": [FACTORED, "seed=1"],
    "dense.seed1": [DENSE, "seed=1"],
    # the paper's Table 5
    "dense.gelu": [DENSE, GELU],
    "template.scaled": [FACTORED, SCALED],
    "template.scaled-gelu": [FACTORED, SCALED, GELU],
}


def sources(*, template: float, scaled: float, taught: float) -> dict[str, Recipe]:
    """:data:`SOURCES` at equal budgets, in epochs.

    A step of a template costs more than one of a dense source, one with a scaled width costs less, and a source that
    is ``taught`` sees whole images (its teacher comes on top). The epochs are from
    :func:`sweet.costs.plan.pretraining_cost`; tests compute them again.
    """

    def epochs(name: str) -> list[str]:
        if name == "kronecker.taught":
            return [f"epochs={taught:g}"]
        if "scaled" in name:
            return [f"epochs={scaled:g}"]
        return [f"epochs={template:g}"] if name.startswith("template") else []

    return {name: [*made, *epochs(name)] if isinstance(made, list) else made for name, made in SOURCES.items()}


def ours(method: str, source: str, switches: Switches | None = None, *, about: str = "") -> Arm:
    """An arm that is not a baseline."""
    return Arm(method, source, switches or {}, role="ours", about=about)


ARMS = {
    "random": Arm("random", about="timm's own initialisation"),
    # timm's weights are small for a short budget (docs/log.md)
    "random_rms": Arm("random", None, {"rms": 0.07}, about="the same with every matrix at root mean square 0.07"),
    "mimetic": Arm("mimetic", about="random, with attention that looks like a trained one's; no source"),
    "weight_selection": Arm(
        "weight_selection", "dense", {"rule": "consecutive"}, about="first channels of a dense source (WT-Select)"
    ),
    "weight_selection_uniform": Arm(
        "weight_selection", "dense", {"rule": "uniform"}, about="evenly spaced channels, the rule of its paper"
    ),
    "weight_selection_equal": Arm(
        "weight_selection", "dense", {"rule": "consecutive", "gains": "equal"}, about="first channels, sweet's gains"
    ),
    "weight_selection_heads": Arm(
        "weight_selection", "dense", {"rule": "whole_heads"}, about="evenly spaced channels, but whole heads"
    ),
    "isomorphic": Arm("isomorphic", "dense", about="pruned by Taylor scores; at full width weight selection"),
    "tleg": Arm("tleg", "dense", about="a line through the dense source's first and last block"),
    "tleg_trained": Arm("tleg", "linear", about="blocks on a line, learned so"),
    "wave": Arm("wave", "kronecker", about="Kronecker templates; scalers trained for the size, by MAE"),
    "wave_supervised": Arm("wave", "kronecker.taught", about="the same, learned and trained by a teacher with labels"),
    "dmae": Arm("dmae", "dense", about="distilled from the dense source for the size"),
    "principal_slice": Arm("principal_slice", "dense", about="first principal directions of the dense source, no more"),
    "sweet_prefix": ours(
        "sweet", "template", {"order": "prefix"}, about="the paper's slice of a template learned at full width alone"
    ),
    "sweet_paper": ours(
        "sweet", "template.scaled", {"order": "prefix"}, about="the paper's method: masked factors (Eq. 5-8), its slice"
    ),
    "sweet_paper_fitted": ours(
        "sweet_fitted",
        "template.scaled",
        {"order": "prefix", "train": "xuv", "objective": "mae"},
        about="the paper's method, its scalers then fitted by MAE (Eq. 9)",
    ),
    "sweet_learned": ours(
        "sweet", "template", about="the paper's template, a third of the numbers, in principal order"
    ),
    "sweet_inner_prefix": ours(
        "sweet", "converted", {"inner": "prefix"}, about="sweet with each layer's first heads and hidden units"
    ),
    "sweet": ours(
        "sweet", "converted", about="principal order, equal gains, highest-energy heads; of a template learned whole"
    ),
    "sweet_tiles": ours("sweet", "kronecker", about="sweet; of a template learned as sums of Kronecker products"),
    "sweet_tiles_prefix": ours("sweet", "kronecker", {"order": "prefix"}, about="the paper's slice of that template"),
    "sweet_fitted": ours("sweet_fitted", "converted", about="sweet, its scalers then fitted on unlabelled images"),
    # only what reads the features learns
    "sweet_fitted_control": ours(
        "sweet_fitted", "converted", {"train": "decoder", "objective": "mae"}, about="sweet; a fit of the decoder alone"
    ),
}


def arms(*names: str) -> dict[str, Arm]:
    """Rows of :data:`ARMS` by name."""
    return {name: ARMS[name] for name in names}


def both_orders(rows: Mapping[str, tuple[str, str]]) -> dict[str, Arm]:
    """Rows from {name: (source, about)}, sliced as the paper does, and after each ``NAME_principal``."""
    result = {}
    for name, (source, about) in rows.items():
        if source.startswith("dense"):
            result[name] = Arm("weight_selection", source, {"rule": "consecutive"}, about=about)
        else:
            result[name] = ours("sweet", source, {"order": "prefix"}, about=about)
        result[f"{name}_principal"] = ours(
            "sweet", source, {"order": "principal"}, about="the same by the defaults of sweet"
        )
    return result


# The paper's Table 4: one way to take a size, four ways to have learned the source.
CONSTRAINTS = both_orders(
    {
        "none": ("dense", "first channels of weights learned without a constraint"),
        "linear": ("linear", "of blocks learned on a line"),
        "kronecker": ("kronecker", "of sums of Kronecker products"),
        "tucker": ("template", "of a Tucker template, the paper's choice"),
    }
)
# The paper's Table 5. WT-Select there starts from the MAE of everybody, GELU and LayerNorm.
ABLATIONS = both_orders(
    {
        "no_scaling": ("template", "the template learned at full width alone"),
        "weight_selection": ("dense.gelu", "first channels of a dense source with GELU and LayerNorm (WT-Select)"),
        "no_architecture": ("template.scaled-gelu", "the template with GELU and LayerNorm, its width scaled at random"),
        "sweet": ("template.scaled", "the paper's template, its width scaled at random"),
    }
)
# A mean over seeds of the fine-tuning says nothing of the source's own seed: rows of their own, never one mean.
SECOND_SOURCE = {
    f"{name}{seed}": Arm(arm.method, f"{arm.source}{seed}", arm.switches, role=arm.role)
    for seed in ("", ".seed1")
    for name, arm in arms("weight_selection", "principal_slice", "sweet_learned").items()
}
