"""Questions about the method (methods 17) as arms of a table, ``sweet bench study --protocol nano``. Imports no torch.

A default of the method changes only by rows of this table. What was asked and found is told in docs/log.md. An arm's
name is its source, what is done with it and, after @, the fine-tuning rate in thousandths.
"""

from __future__ import annotations

from dataclasses import replace

from .arms import Arm, Converted

DENSE = "template.constraint=none"
FINETUNE = {"@2": None, "@4": 4e-3}  # None: the table's own 2e-3

# Overrides of recipe nano; only the sources of the arms that are asked for are learned.
STUDY_SOURCES: dict[str, list[str] | Converted] = {
    **{f"dense{lr}": [DENSE, f"lr={lr}e-3"] for lr in (2, 4, 8)},
    **{f"tucker{lr}": [f"lr={lr}e-3"] for lr in (2, 4, 8)},
    "full4": ["lr=4e-3", "template.ranks=[96,128,128]"],
    "shared4": ["lr=4e-3", "template.ranks=[32,128,128]"],
    "frozen4": ["lr=4e-3", "template.ranks=[32,128,128]", "template.lr_u=0", "template.lr_v=0"],
    "slow4": ["lr=4e-3", "template.lr_u=0.3", "template.lr_v=0.3"],
    "depth4": ["lr=4e-3", "depth.mode=even", "depth.min_blocks=2"],
    "width4": ["lr=4e-3", "width.mode=shared", "width.min_heads=2"],
}


DENSES = [source for source in STUDY_SOURCES if source.startswith("dense")]
TUCKERS = [source for source in STUDY_SOURCES if not source.startswith("dense")]
ARMS = {
    "random": Arm("random"),
    **{f"{source}.principal": Arm("principal_slice", source) for source in DENSES},
    **{f"{source}.prefix": Arm("weight_selection", source, {"rule": "consecutive"}) for source in DENSES},
    **{f"{source}.principal": Arm("sweet", source) for source in TUCKERS},
    **{f"{source}.prefix": Arm("sweet", source, {"order": "prefix"}) for source in TUCKERS},
    "dense4.prefix-sqrt": Arm("weight_selection", "dense4", {"rule": "consecutive", "gains": "sqrt"}),
    "tucker4.prefix-sqrt": Arm("sweet", "tucker4", {"order": "prefix", "gains": "sqrt"}),
    **{f"tucker4.gains-{gains}": Arm("sweet", "tucker4", {"gains": gains}) for gains in ("none", "sqrt")},
    **{f"tucker4.fit-{train}": Arm("sweet_fitted", "tucker4", {"train": train}) for train in ("x", "xuv", "all")},
    "tucker4.fit-features": Arm("sweet_fitted", "tucker4", {"objective": "features"}),
    "tucker4.fit-closed": Arm("sweet_fitted", "tucker4", {"objective": "closed"}),
    "tucker4.fit-none": Arm("sweet_fitted", "tucker4", {"train": "decoder"}),
}
STUDY_ARMS = {f"{name}{at}": replace(arm, lr=lr) for name, arm in ARMS.items() for at, lr in FINETUNE.items()}
