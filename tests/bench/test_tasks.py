"""A table whose cells are of several tasks: each by its own recipe, at its own image size, judged by its own metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweet.bench.arms import arms
from sweet.bench.protocol import Protocol, Trial
from sweet.bench.run import run
from sweet.files import read_json
from sweet.tasks.registry import TASKS

SHORT = ("max_steps=2", "batch_size=4", "workers=0", "optim.precision=fp32")
HEADS: dict[str, dict[str, Any]] = {
    "detect": {"channels": 8, "fc_width": 16, "window": 0, "proposals": 8, "rois": 8, "anchor_scale": 1},
    "segment": {"channels": 8, "aux_channels": 8, "short_side": 0, "crop": 32, "window": 0},
    "generate": {"steps": 2, "samples": 20},
}
TRIALS = {
    task: Trial(
        task,
        None,
        (*SHORT, *(f"head.{key}={value}" for key, value in head.items())),
        img_size=None if task == "generate" else 32,
        patch_size=None if task == "generate" else 8,
    )
    for task, head in HEADS.items()
}

TINY = Protocol(
    name="tiny",
    pretrain=str(Path(__file__).parents[1] / "tiny.yaml"),
    sizes=("L1H1",),
    arms=arms("random", "sweet"),
    seeds=1,
    finetune=(),
    trials=tuple(TRIALS.values()),
)


@pytest.mark.slow
def test_a_table_of_several_tasks(tmp_path: Path) -> None:
    summary = run(TINY, "tasks", out=tmp_path, workers=1, device="cpu", quiet=True)
    assert (summary["measured"], summary["open"], summary["failed"]) == (6, 0, [])
    text = (tmp_path / "tiny" / "tasks" / "table.md").read_text()
    for task in TRIALS:
        for arm in ("random", "sweet"):
            cell = read_json(tmp_path / "tiny" / "tasks" / f"{task}-{arm}-L1H1.json")
            assert cell["task"] == task and cell["recipe"]["head"].items() >= HEADS[task].items()
            metric = TASKS[task]
            assert f"| {arm} | {metric.text(cell['runs'][0][metric.key])} (1) |" in text
