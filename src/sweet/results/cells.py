"""Results as JSON files and the tables made from them: no number is typed by hand.

``<out>/<protocol>/<table>/<task>-<arm>-<size>.json`` holds every seed's run of one cell of a table; on other images
than those of pre-training the name goes on ``-<set>``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweet.bench.protocols import Cell, Trial
from sweet.errors import UserError
from sweet.files import read_json, write_json
from sweet.tasks.registry import TASKS, Metric

from .paired import difference, mean_and_spread, spread_text

Table = dict[tuple[str, str], dict[str, Any]]  # (arm, column) -> a cell with its runs
OF_A_RUN = ("commit", "environment")  # once stood in the cell


def result_path(out: Path, protocol: str, table: str, cell: Cell) -> Path:
    place = f"-{cell.trial.data}" if cell.trial.data else ""
    return out / protocol / table / f"{cell.trial.task}-{cell.arm}-{cell.size}{place}.json"


def add_run(path: Path, head: dict[str, Any], run: dict[str, Any]) -> None:
    """Add one seed's run to a cell's file, which ``head`` describes. Raises UserError on another budget or source.

    A source is another one too where it was learned once more, on another machine: runs tell its checksum.
    """
    cell = read_cell(path) if path.is_file() else dict(head, runs=[])
    check_same(path, cell, head, ("recipe_hash", "n_train", "test_images", "patch_size", "source"))
    for other in cell["runs"]:
        if other["seed"] != run["seed"]:
            check_same(path, other, run, ("source_sha256",))
    cell["runs"] = sorted([r for r in cell["runs"] if r["seed"] != run["seed"]] + [run], key=lambda r: r["seed"])
    write_json(path, cell)


def check_same(path: Path, cell: Mapping[str, Any], head: Mapping[str, Any], keys: Sequence[str]) -> None:
    """UserError unless a cell's file tells the same of itself as a new run does: seeds of two things make no mean."""
    for key in keys:
        if key in cell and key in head and cell[key] != head[key]:
            was, now = cell, head
            if key == "recipe_hash":  # the keys behind it say more; without one it is the rule of layers
                was, now = ({key: one[key], **_flat(one.get("recipe", {}))} for one in (cell, head))
                key = next((name for name in now if name != key and was.get(name) != now[name]), key)
            raise UserError(f"{path}: {key} is {was.get(key)}, this run has {now[key]}; remove the file to start anew")


def _flat(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """{"group.key": value} of a recipe."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{at}{key}.") if isinstance(value, Mapping) else {at + key: value}
    return flat


def read_cell(path: Path) -> dict[str, Any]:
    """A cell's file; what older ones say of the cell though it is told by a run is moved into their runs."""
    cell = read_json(path)
    moved = {key: cell.pop(key) for key in OF_A_RUN if key in cell}
    cell["runs"] = [moved | run for run in cell["runs"]]
    return cell


def chance_of(cells: Table) -> float | None:
    """Top-1 of guessing, in %; None where the cells have none, or sets of different numbers of classes."""
    told = {cell.get("chance_top1") for cell in cells.values()}
    return told.pop() if len(told) == 1 else None


def is_rival(arm: str, ours: str, *, ablation: bool = False) -> bool:
    """Whether ours is compared with a row: with those that are not named ``sweet...``, in an ablation with all."""
    return arm != ours and (ablation or not (arm.startswith("sweet") and ours.startswith("sweet")))


def read_table(out: Path, protocol: str, table: str, task: str = "classify") -> Table:
    """{(arm, column): cell} of everything measured so far of a task; a column is a size, on a set where one is told."""
    cells = [read_cell(path) for path in sorted((out / protocol / table).glob(f"{task}-*.json"))]
    return {(cell["arm"], Trial(task, cell.get("set")).column(cell["size"])): cell for cell in cells}


def seeds_of(cell: dict[str, Any], metric: str = "top1") -> dict[int, float]:
    """{seed: value} of the runs that have it: a set without small objects has no AP of them."""
    return {run["seed"]: run[metric] for run in cell["runs"] if run.get(metric) is not None}


def means(
    cells: Table,
    arms: Sequence[str],
    sizes: Sequence[str],
    metric: Metric = TASKS["classify"],
    failed: Collection[tuple[str, str]] = (),
) -> list[dict[str, str]]:
    """Mean ± spread (seeds) of each cell, a row for each arm; ``average`` only where every size was measured.

    Cells without a result say so where they ``failed``.
    """
    rows = []
    for arm in arms:
        row, found = {"start": arm}, []
        for size in sizes:
            if (arm, size) not in cells:
                row[size] = "failed" if (arm, size) in failed else "-"
                continue
            values = list(seeds_of(cells[arm, size], metric.key).values())
            if not values:
                row[size] = "-"
                continue
            found.append(mean_and_spread(values)[0])
            row[size] = spread_text(values, metric)
        row["average"] = metric.text(sum(found) / len(found)) if len(found) == len(sizes) else "-"
        rows.append(row)
    return rows


def write_source(out: Path, protocol: str, name: str, facts: Mapping[str, Any]) -> None:
    """Tell a source's facts once; another source that bore the same ``name`` in a table keeps its own file."""
    folder = out / protocol / "sources"
    if facts["source"] in read_sources(out, protocol):
        return
    taken = (folder / f"{name}.json").exists()
    write_json(folder / (f"{name}-{facts['source'].rpartition('-')[2]}.json" if taken else f"{name}.json"), facts)


def budgets(cells: Table, sources: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What learning each source of a table took, side by side; None where nothing is told."""
    used = sorted({cell["source"] for cell in cells.values() if cell.get("source")})
    told = {name: sources.get(name, {}) for name in used}  # the oldest sources do not tell their FLOPs
    least = min((facts["pflops"] for facts in told.values() if "pflops" in facts), default=0.0)
    return [
        {
            "source": name,
            "images": facts.get("images"),
            "seconds": _fixed(facts.get("seconds"), 0),
            "PFLOPs": _fixed(facts.get("pflops"), 4),
            "against the least": _fixed(facts["pflops"] / least, 3) if least and "pflops" in facts else None,
        }
        for name, facts in told.items()
    ]


def read_sources(out: Path, protocol: str) -> dict[str, dict[str, Any]]:
    """{name with hash: what its pre-training took} of the sources that were used."""
    told = [read_json(path) for path in sorted((out / protocol / "sources").glob("*.json"))]
    return {facts["source"]: facts["training"] for facts in told}


def costs(
    cells: Table, arms: Sequence[str], sizes: Sequence[str], sources: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each arm and size: what it gives before and after fine-tuning, and what it took to get there.

    Means over seeds; ``sources`` as of :func:`read_sources`. None where nothing was measured, or nothing is needed.
    """
    rows = []
    for arm, size in [(arm, size) for arm in arms for size in sizes if (arm, size) in cells]:
        cell = cells[arm, size]
        learned = sources.get(cell.get("source") or "", {})
        rows.append(
            {
                "start": arm,
                "size": size,
                "MAE loss": _fixed(_mean(cell, "init_mae_loss"), 4),
                "k-NN, %": _fixed(_mean(cell, "init_knn"), 2),
                TASKS["classify"].label: spread_text(list(seeds_of(cell).values()), TASKS["classify"]),
                "init, s": _fixed(_mean(cell, "init_seconds"), 2),
                "unlabelled images": _fixed(_mean(cell, "init_images"), 0),
                "pre-training, s": _fixed(learned.get("seconds"), 0),
                "PFLOPs": _fixed(learned.get("pflops"), 4),
            }
        )
    return rows


def _mean(cell: dict[str, Any], metric: str) -> float | None:
    """Over the runs that have it: older ones do not, and some methods bring no decoder."""
    values = [run[metric] for run in cell["runs"] if run.get(metric) is not None]
    return mean_and_spread(values)[0] if values else None


def _fixed(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a table."""
    heads = list(rows[0]) if rows else []
    lines = [heads, ["---"] * len(heads), *([_text(row[head]) for head in heads] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def comparison(cells: Table, ours: str, theirs: str, columns: Sequence[str], metric: Metric) -> list[dict[str, Any]]:
    """The paired difference of two rows at each column where they have a seed in common; above zero ours is better."""
    rows = []
    for column in columns:
        a, b = (seeds_of(cells[arm, column], metric.key) if (arm, column) in cells else {} for arm in (ours, theirs))
        one = difference(a, b, metric)
        if one is None:
            continue
        rows.append(
            {
                "size": column,
                "difference": round(one.value, 3),
                "standard_error": None if math.isnan(one.error) else round(one.error, 3),
                "seeds": one.seeds,
                "verdict": one.verdict,
            }
        )
    return rows
