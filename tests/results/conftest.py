"""Results as a bench would leave them, small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweet.files import write_json
from sweet.results.report import report

VIT = {"depth": 12, "heads": 12, "head_dim": 16, "img_size": 32, "patch_size": 4, "family": "eva"}
MAE = {"mask_ratio": 0.75, "norm_pix": True, "decoder_width": 96, "decoder_depth": 2, "decoder_head_dim": 16}
NO_CHANGE: dict[str, Any] = {}
DATA = {"img_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
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
        "data": DATA,
        "training": training,
    } | more


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The page of the committed results, and what the report returned."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    return out, report([Path(__file__).parents[2] / "results"], out)


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Path]:
    """results({("sweet", "L6H6"): [47.0, 48.0]}, ...): a folder with these values, seeds from 0, sources and a spec.

    Arms and columns stand in the order of the cells; ``spec`` changes what ``table.json`` says, None leaves it out.
    """

    def make(
        cells: dict[tuple[str, str], list[float]],
        *,
        metric: str = "top1",
        table: str = "table1",
        extra: dict[str, Any] | None = None,
        sources: bool = True,
        spec: dict[str, Any] | None = NO_CHANGE,
        **head: Any,
    ) -> Path:
        folder = tmp_path / "results" / "micro" / table
        for i, ((arm, size), values) in enumerate(cells.items()):
            runs = [{"seed": seed, metric: value} | (extra or {}) for seed, value in enumerate(values)]
            start = None if arm == "random" else "micro-tucker" if arm.startswith("sweet") else "micro-none"
            cell = CELL | {"table": table, "arm": arm, "method": method(arm), "size": size, "source": start} | head
            write_json(folder / f"cell-{i}.json", cell | {"runs": runs})
        if spec is not None:
            arms, sizes = (dict.fromkeys(key[place] for key in cells) for place in (0, 1))
            task = head.get("task", "classify")
            whole = {
                "table": table,
                "protocol": "micro",
                "arms": [{"name": arm, "method": method(arm), "role": role(arm)} for arm in arms],
                "columns": [{"size": size, "task": task} for size in sizes],
                "main": "sweet",
            }
            write_json(folder / "table.json", whole | spec)
        if sources:
            for constraint in ("none", "tucker"):
                write_json(folder.parent / "sources" / f"{constraint}.json", source(constraint))
        return tmp_path / "results"

    return make


def role(arm: str) -> str:
    """Of an arm's name."""
    ends = {"_conditioned": "conditioned", "_paper": "paper", "own_mae": "reference"}
    other = "ours" if arm.startswith("sweet") else "baseline"
    return next((role for end, role in ends.items() if arm.endswith(end)), other)


def method(arm: str) -> str:
    """Of an arm's name: ours are all ways to slice or fit a template."""
    return "sweet_fitted" if arm == "sweet_fitted" else "sweet" if arm.startswith("sweet") else arm
