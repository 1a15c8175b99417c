"""Questions about the method (methods 17) as arms of a table, ``sweet bench study --protocol nano``. Imports no torch.

A default of the method changes only by rows of this table. What was asked and found is told in docs/log.md.
"""

from __future__ import annotations

from .arms import Arm, Converted

DENSE = "template.constraint=none"
PRINCIPAL, PREFIX = {"order": "principal"}, {"order": "prefix"}

# Overrides of recipe nano; only the sources of the arms that are asked for are learned.
STUDY_SOURCES: dict[str, list[str] | Converted] = {
    # learning rates of the sources, so that every constraint is met at its own
    "dense_lr1": [DENSE, "lr=1e-3"],
    "dense_lr2": [DENSE, "lr=2e-3"],
    "dense_lr4": [DENSE, "lr=4e-3"],
    "tucker_lr2": ["lr=2e-3"],
    "tucker_lr4": ["lr=4e-3"],
}

STUDY_ARMS: dict[str, Arm] = {
    "random": Arm("random"),
    **{f"dense_lr{lr}.principal": Arm("principal_slice", f"dense_lr{lr}") for lr in (1, 2, 4)},
    **{f"dense_lr{lr}.prefix": Arm("weight_selection", f"dense_lr{lr}", {"rule": "consecutive"}) for lr in (1, 2, 4)},
    **{f"tucker_lr{lr}.principal": Arm("sweet", f"tucker_lr{lr}", PRINCIPAL) for lr in (2, 4)},
    **{f"tucker_lr{lr}.prefix": Arm("sweet", f"tucker_lr{lr}", PREFIX) for lr in (2, 4)},
}
