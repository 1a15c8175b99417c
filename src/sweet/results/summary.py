"""Table and picture of everything that was measured of a table so far, beside its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweet.bench.cells import CHECKED
from sweet.bench.protocols import Cell, Protocol
from sweet.files import write_text
from sweet.tasks.registry import METRICS_OF, TASKS

from .cells import (
    Table,
    budgets,
    chance_of,
    comparison,
    costs,
    is_rival,
    markdown,
    means,
    read_sources,
    read_table,
    seeds_of,
)

COSTS = f"""
What initialising gives and takes: MAE loss and k-NN on up to {CHECKED:,} test images before any fine-tuning, top-1
after it; seconds and unlabelled images of one initialisation; seconds and PFLOPs of its source's pre-training

"""
BUDGETS = """
What learning the sources took

"""


def summary(out: Path, name: str, told: Protocol, failed: Sequence[Cell] = ()) -> dict[str, Any]:
    """What was measured, a block for each task; ``table.md`` and pictures are written beside the results."""
    from .render.table_figure import picture

    tasks = list(dict.fromkeys(trial.task for trial in told.trials))
    folder, text = out / told.name / name, ""
    result: dict[str, Any] = {"table": name, "protocol": told.name, "measured": 0}
    shown: Table = {}
    for task in tasks:
        cells, columns, arms = read(out, name, told, task)
        shown |= {(f"{task} {arm}", column): cell for (arm, column), cell in cells.items()}
        wrong = {(cell.arm, cell.trial.column(cell.size)) for cell in failed if cell.trial.task == task}
        blocks = [means(cells, arms, columns, metric, wrong) for metric in METRICS_OF[task]]
        against = rivals(cells, arms, columns, told, task)
        costing = costs(cells, arms, columns, read_sources(out, told.name)) if told.costs else []
        chance = chance_of(cells)
        at = "" if len(tasks) == 1 else f"{task}_"
        result["measured"] += sum(len(cell["runs"]) for cell in cells.values())
        result |= {f"{at}chance_top1": chance, f"{at}{TASKS[task].key}": blocks[0], f"{at}comparison": against}
        result |= {f"{at}costs": costing} if costing else {}
        if not cells:
            continue
        text += "\n" if text else ""
        text += f"Protocol {told.name}, {task}, held-out images, mean ± spread (seeds)."
        text += "\n" if chance is None else f" Chance is {chance:g} % top-1.\n"
        for metric, rows in zip(METRICS_OF[task], blocks, strict=True):
            if metric != TASKS[task] and not any(seeds_of(cell, metric.key) for cell in cells.values()):
                continue  # of boxes without masks
            text += f"\n{_heading(metric.label)}\n\n{markdown(rows)}"
        if against:
            text += (
                f"\nDifferences of {TASKS[task].label}, paired over seeds: above zero {told.ours} is better, a gain is "
            )
            text += f"two standard errors or more\n\n{markdown(against)}"
        text += COSTS + markdown(costing) if costing else ""
        picture(
            cells, arms, columns, folder / f"{at}table.png".replace("_", "-"), title=f"{name}, {told.name}", task=task
        )
    if text:
        learned = budgets(shown, read_sources(out, told.name))
        write_text(folder / "table.md", text + (BUDGETS + markdown(learned) if learned else ""))
    return result | {"written": str(folder)}


def read(out: Path, name: str, told: Protocol, task: str) -> tuple[Table, list[str], list[str]]:
    """Cells of a task, the columns of its table, and the arms that have any."""
    cells = read_table(out, told.name, name, task)
    columns = [trial.column(size) for trial in told.trials if trial.task == task for size in told.sizes]
    return cells, columns, [arm for arm in told.arms if any(key[0] == arm for key in cells)]


def rivals(cells: Table, arms: list[str], columns: list[str], told: Protocol, task: str) -> list[dict[str, Any]]:
    """Ours against every arm that is not ours, column by column."""
    return [
        {f"{told.ours} against": rival, **row}
        for rival in (arms if told.ours in arms else [])
        if is_rival(rival, told.ours, ablation=told.ablation)
        for row in comparison(cells, told.ours, rival, columns, TASKS[task])
    ]


def _heading(label: str) -> str:
    return label[:1].upper() + label[1:] if label[1:2].islower() else label  # mIoU is a name
