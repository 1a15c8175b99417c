"""Rows of the tables: initialisers with their switches, and the sources that they start from. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sweet.initialise.registry import STREAM_RMS
from sweet.results.records import Role
from sweet.template.sizes import Size

Switches = Mapping[str, str | float]

SCALED: Switches = {"writers": STREAM_RMS}  # the scale of the whole stream: the function stays


@dataclass(frozen=True)
class Arm:
    """One row of a table: an initialiser with its switches, and which of ``Protocol.sources`` it starts from.

    ``source`` may hold ``{size}``: then each size has its own. All methods of a table have one rule for ``layers``,
    unless an arm's switches have another. ``lr`` and ``layer_decay`` are of fine-tuning, where a sweep of the method
    found other values than the table's.
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


@dataclass(frozen=True)
class Checkpoint:
    """Weights that somebody else trained, as a dense source at the image size of use; ``--checkpoint`` names them.

    ``shape`` are overrides of the table's recipe that describe them.
    """

    shape: tuple[str, ...]


Recipe = list[str] | Converted | Rotated | FineTuned | Checkpoint

DENSE = "template.constraint=none"
KRONECKER = "template.constraint=kronecker"
FACTORED = "template.learn=factored"  # the paper's way
GELU = "model.family=vit"
# Eq. 7-8: masks on the matrices alone; each step has its own widths, and each of them would be compiled
LITERAL = ("width.mode=independent", "optim.compile=false")
SLICED = "width.apply=slice"  # narrower sub-networks instead
TAUGHT = [KRONECKER, "objective=supervised", "teacher=@taught"]
OWN = "own.{size}"  # a source of each size
OWN_RANKS = ["template.ranks=null"]  # those of a recipe are for its own size

# Overrides of a table's recipe, or made of another. ``init_from=@NAME`` goes on from another of these,
# ``teacher=@NAME`` learns from its answers and the labels of the table. Only sources that a cell needs are learned.
SOURCES: dict[str, Recipe] = {
    "dense": [DENSE],  # the first: arms without a source take its shape
    "template": [FACTORED],
    "linear": ["template.constraint=linear"],
    "kronecker": [KRONECKER],
    # the same functions as templates of full ranks: nothing is lost, nothing learned
    "converted": Converted("dense"),
    "tiles": Converted("kronecker"),
    # the paper's second way to learn WAVE's tiles
    "taught": FineTuned("dense"),
    "kronecker.taught": TAUGHT,
    # the paper's Table 5
    "dense.gelu": [DENSE, GELU],
    "template.literal": [FACTORED, *LITERAL],
    "template.sliced": [FACTORED, *LITERAL, SLICED],
    "template.literal-gelu": [FACTORED, *LITERAL, GELU],
}


def own_sources(*sizes: str) -> dict[str, list[str]]:
    """A dense source of each size, learned as the other ones are: the same images and steps, fewer FLOPs."""
    return {
        OWN.format(size=size): [DENSE, *OWN_RANKS, f"model.depth={size.depth}", f"model.heads={size.heads}"]
        for size in map(Size.parse, sizes)
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
        if name.startswith("template."):
            return [f"epochs={scaled:g}"]
        return [f"epochs={template:g}"] if name == "template" else []

    return {name: [*made, *epochs(name)] if isinstance(made, list) else made for name, made in SOURCES.items()}


def ours(method: str, source: str, switches: Switches | None = None, *, about: str = "") -> Arm:
    """An arm that is not a baseline."""
    return Arm(method, source, switches or {}, role="ours", about=about)


def conditioned(arm: Arm, *, role: Role = "conditioned") -> Arm:
    """The same start with ``condition=true``: its function as it was, its coordinates as ours are."""
    return replace(arm, switches={**arm.switches, "condition": "true"}, role=role, about=f"{arm.about}; conditioned")


PREFIX = {"order": "prefix"}
WEIGHT_SELECTION = Arm(
    "weight_selection", "dense", {"rule": "consecutive"}, about="first channels of a dense source (WT-Select)"
)
ISOMORPHIC = Arm("isomorphic", "dense", about="pruned by Taylor scores; at full width weight selection")
WAVE = Arm("wave", "kronecker", about="Kronecker templates; scalers trained for the size, by MAE")
OWN_MAE = Arm(
    "weight_selection",
    OWN,
    {"rule": "consecutive"},
    role="reference",
    about="the size pre-trained itself by MAE, as many images and steps as a source",
)
PAPER = Arm(
    "sweet",
    "template.literal",
    PREFIX,
    role="paper",
    about="the paper's method: masked factors (Eq. 5-8), its prefix slice",
)
PAPER_FITTED = Arm(
    "sweet_fitted",
    "template.literal",
    {**PREFIX, "train": "xuv", "objective": "mae"},
    role="paper",
    about="the paper's method, its scalers then fitted by MAE (Eq. 9)",
)

ARMS = {
    "random": Arm("random", about="timm's own initialisation"),
    # timm's weights are small for a short budget (docs/log.md)
    "random_rms": Arm("random", None, {"rms": 0.07}, about="the same with every matrix at root mean square 0.07"),
    "mimetic": Arm("mimetic", about="random, with attention that looks like a trained one's; no source"),
    "weight_selection": WEIGHT_SELECTION,
    "weight_selection_uniform": Arm(
        "weight_selection", "dense", {"rule": "uniform"}, about="evenly spaced channels, the rule of its paper"
    ),
    "weight_selection_equal": Arm(
        "weight_selection", "dense", {"rule": "consecutive", "gains": "equal"}, about="first channels, sweet's gains"
    ),
    "weight_selection_heads": Arm(
        "weight_selection", "dense", {"rule": "whole_heads"}, about="evenly spaced channels, but whole heads"
    ),
    "isomorphic": ISOMORPHIC,
    "tleg": Arm("tleg", "dense", about="a line through the dense source's first and last block"),
    "tleg_trained": Arm("tleg", "linear", about="blocks on a line, learned so"),
    "wave": WAVE,
    "wave_supervised": Arm("wave", "kronecker.taught", about="the same, learned and trained by a teacher with labels"),
    "dmae": Arm("dmae", "dense", about="distilled from the dense source for the size"),
    "principal_slice": Arm("principal_slice", "dense", about="first principal directions of the dense source, no more"),
    "weight_selection_conditioned": conditioned(WEIGHT_SELECTION),
    "isomorphic_conditioned": conditioned(ISOMORPHIC),
    "wave_conditioned": conditioned(WAVE),
    "sweet_paper_conditioned": conditioned(PAPER),
    "own_mae": OWN_MAE,
    "own_mae_conditioned": conditioned(OWN_MAE, role="reference"),
    "sweet_paper": PAPER,
    "sweet_paper_fitted": PAPER_FITTED,
    "sweet_prefix": ours("sweet", "template", PREFIX, about="the paper's slice of a template learned at full width"),
    "sweet_tiles_prefix": ours("sweet", "tiles", PREFIX, about="the paper's slice of the template of sweet"),
    "sweet_tucker": ours("sweet", "template", about="sweet; of the paper's Tucker template, learned at full width"),
    "sweet_dense": ours("sweet", "converted", about="sweet; of a template learned without a constraint"),
    "sweet_inner_prefix": ours(
        "sweet", "tiles", {"inner": "prefix"}, about="sweet with each layer's first heads and hidden units"
    ),
    "sweet": ours(
        "sweet", "tiles", about="principal order, equal gains, highest-energy heads; of the very tiles that wave takes"
    ),
    "sweet_fitted": ours("sweet_fitted", "tiles", about="sweet, its scalers then fitted on unlabelled images"),
    # only what reads the features learns
    "sweet_fitted_control": ours(
        "sweet_fitted", "tiles", {"train": "decoder", "objective": "mae"}, about="sweet; a fit of the decoder alone"
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
            result[name] = ours("sweet", source, PREFIX, about=about)
        result[f"{name}_principal"] = ours("sweet", source, {"order": "principal"}, about="the same in principal order")
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
# The paper's Table 5, and how its scaling is computed. WT-Select there starts from the MAE of everybody, GELU and
# LayerNorm.
ABLATIONS = both_orders(
    {
        "literal": ("template.literal", "the paper's template, its matrices masked in width at random (Eq. 7-8)"),
        "sliced": ("template.sliced", "the same, but narrower sub-networks"),
        "no_scaling": ("template", "the template learned at full width alone"),
        "gelu": ("template.literal-gelu", "literal, with GELU and LayerNorm"),
        "weight_selection": ("dense.gelu", "first channels of a dense source with GELU and LayerNorm (WT-Select)"),
    }
)
