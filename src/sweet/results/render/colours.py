"""A colour and a mark for each arm, the same in every figure, on white and on black. Related arms may share a mark."""

from __future__ import annotations

import zlib

# ours are blue; the colours of the baselines are those of Okabe and Ito (2008), which colour-blind readers tell apart
MARKS = {
    "random": ("#8c8c8c", "X"),
    "random_rms": ("#6f7f7a", "P"),
    "mimetic": ("#a99a6b", "*"),
    "weight_selection": ("#e69f00", "s"),
    "weight_selection_uniform": ("#c7a44e", "d"),
    "weight_selection_equal": ("#f3c25a", "8"),
    "weight_selection_heads": ("#a9720d", "h"),
    "isomorphic": ("#d55e00", "D"),
    "tleg": ("#8c564b", "<"),
    "tleg_trained": ("#b58a80", ">"),
    "wave": ("#7d55c7", "v"),
    "wave_supervised": ("#b8a1e3", "<"),
    "dmae": ("#cc79a7", "p"),
    "principal_slice": ("#009e73", "^"),
    "weight_selection_conditioned": ("#b87f00", "s"),
    "isomorphic_conditioned": ("#a34700", "D"),
    "wave_conditioned": ("#5a36a0", "v"),
    "sweet_paper_conditioned": ("#22406f", "s"),
    "own_mae_conditioned": ("#1f1f1f", "o"),
    "own_mae": ("#b03a6f", "*"),
    "none": ("#e69f00", "s"),
    "linear": ("#8c564b", "<"),
    "kronecker": ("#7d55c7", "v"),
    "tucker": ("#1a73c8", "o"),
    "no_scaling": ("#009e73", "^"),
    "no_architecture": ("#d55e00", "D"),
    "literal": ("#5475b5", "s"),
    "sliced": ("#cc79a7", "p"),
    "gelu": ("#d55e00", "D"),
    "sweet_learned": ("#5b8def", "h"),
    "sweet_prefix": ("#56b4e9", "v"),
    "sweet_paper": ("#5475b5", "s"),
    "sweet_paper_fitted": ("#6d86b3", "p"),
    "sweet_tucker": ("#4a78d6", "h"),
    "sweet_dense": ("#3f8fe0", "*"),
    "sweet_inner_prefix": ("#86b6e8", "8"),
    "sweet": ("#1a73c8", "o"),
    "sweet_tiles": ("#4361c9", "D"),
    "sweet_tiles_prefix": ("#7f9fcf", "<"),
    "sweet_fitted": ("#2f9fb5", "P"),
    "sweet_fitted_control": ("#8fcbd6", "d"),
}
OTHERS = ("#1a73c8", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#9a6bc4", "#a99a6b", "#8c8c8c", "#2f9fb5")
SHAPES = "os^DvPX<>p*h8d"
VARIANTS = {"_principal": 4, "_conditioned": 7, "_fitted": 9}  # the colour of the arm without the ending, other marks


def mark(arm: str) -> tuple[str, str]:
    """(colour, matplotlib marker) of an arm; of one that is not named here by its name alone."""
    if arm in MARKS:
        return MARKS[arm]
    for ending, shift in VARIANTS.items():
        if arm.endswith(ending):
            colour, shape = mark(arm.removesuffix(ending))
            return colour, SHAPES[(SHAPES.index(shape) + shift) % len(SHAPES)]
    number = zlib.crc32(arm.encode())
    return OTHERS[number % len(OTHERS)], SHAPES[number // len(OTHERS) % len(SHAPES)]


def colour(arm: str) -> str:
    """The colour of an arm."""
    return mark(arm)[0]
