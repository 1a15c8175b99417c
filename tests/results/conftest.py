"""Results as a bench would leave them, small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweet.files import write_json

VIT = {"depth": 12, "heads": 12, "head_dim": 16, "img_size": 32, "patch_size": 4, "family": "eva"}
MAE = {"mask_ratio": 0.75, "norm_pix": True, "decoder_width": 96, "decoder_depth": 2, "decoder_head_dim": 16}
CELL: dict[str, Any] = {
    "protocol": "micro",
    "table": "table1",
    "task": "classify",
    "data": "parquet:cifar10",
    "recipe": {"epochs": 5.0},
    "n_train": 5000,
    "test_images": 10000,
    "classes": 10,
    "chance_top1": 10.0,
}


def source(constraint: str, **more: Any) -> dict[str, Any]:
    training = {"images": 399360, "steps": 3120, "seconds": 4000.0, "pflops": 0.25 if constraint == "none" else 0.28}
    return {
        "source": f"micro-{constraint}",
        "kind": "dense" if constraint == "none" else "template",
        "constraint": constraint,
        "ranks": None if constraint == "none" else [144, 112, 112],
        "vit": VIT,
        "mae": MAE,
        "training": training,
    } | more


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Path]:
    """results({("sweet", "L6H6"): [47.0, 48.0]}, ...): a folder with these values, seeds from 0, and sources."""

    def make(
        cells: dict[tuple[str, str], list[float]],
        *,
        metric: str = "top1",
        table: str = "table1",
        extra: dict[str, Any] | None = None,
        sources: bool = True,
        **head: Any,
    ) -> Path:
        folder = tmp_path / "results" / "micro" / table
        for i, ((arm, size), values) in enumerate(cells.items()):
            runs = [{"seed": seed, metric: value} | (extra or {}) for seed, value in enumerate(values)]
            start = None if arm == "random" else "micro-tucker" if arm.startswith("sweet") else "micro-none"
            told = CELL | {"table": table, "arm": arm, "method": arm, "size": size, "source": start} | head
            write_json(folder / f"cell-{i}.json", told | {"runs": runs})
        if sources:
            for constraint in ("none", "tucker"):
                write_json(folder.parent / "sources" / f"{constraint}.json", source(constraint))
        return tmp_path / "results"

    return make
