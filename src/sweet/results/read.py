"""What a report is about: tables of a bench and runs, read from the folders that were named. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sweet.bench.protocols import PROTOCOLS, Protocol, Trial
from sweet.errors import UserError
from sweet.files import read_json
from sweet.models.config import ViTConfig
from sweet.tasks.registry import METRICS, TASKS
from sweet.template.sizes import Size

from .cells import is_rival, read_cell

RUN_FILES = ("config.json", "metrics.jsonl", "recipe.yaml")
CELL_KEYS = ("arm", "size", "runs")


@dataclass
class BenchTable:
    """One task of one table, on one data set: its cells, and the sources that they started from.

    ``arms`` and ``sizes`` are what was measured, in the protocol's order; ``ours`` is None where no arm can be ours.
    """

    folder: Path
    protocol: str
    name: str
    task: str
    set: str | None
    cells: dict[tuple[str, str], dict[str, Any]]
    sources: dict[str, dict[str, Any]]
    files: list[Path] = field(default_factory=list)

    @property
    def title(self) -> str:
        parts = [self.protocol, self.name, None if self.task == "classify" else self.task, self.set]
        return " / ".join(part for part in parts if part)

    @cached_property
    def told(self) -> Protocol | None:
        """Its protocol, where this version has it."""
        return next((p for (name, _), p in PROTOCOLS.items() if (p.name, name) == (self.protocol, self.name)), None)

    @property
    def trial(self) -> Trial | None:
        """What the cells were put to, as the protocol tells it."""
        trials = self.told.trials if self.told else ()
        return next((trial for trial in trials if (trial.task, trial.data) == (self.task, self.set)), None)

    @cached_property
    def arms(self) -> list[str]:
        return _ordered((arm for arm, _ in self.cells), self.told.arms if self.told else ())

    @cached_property
    def sizes(self) -> list[str]:
        return _ordered((size for _, size in self.cells), self.told.sizes if self.told else ())

    @cached_property
    def common(self) -> list[str]:
        """Sizes that every arm can make, whether it was measured or not: averages are over these."""
        told = self.told
        if told is None:
            return self.sizes
        arms = [arm for arm in self.arms if arm in told.arms]
        return [size for size in self.sizes if all(told.can(arm, size) for arm in arms)]

    @cached_property
    def open_sizes(self) -> list[str]:
        """Sizes of the protocol of which nothing was measured."""
        return [size for size in (self.told.sizes if self.told else ()) if size not in self.sizes]

    @cached_property
    def ours(self) -> str | None:
        first = [self.told.ours] if self.told else []
        return next((arm for arm in [*first, "sweet", "sweet_prefix", "sweet_fitted"] if arm in self.arms), None)

    @cached_property
    def rivals(self) -> list[str]:
        """Arms that ours is compared with."""
        return [arm for arm in self.arms if is_rival(arm, self.ours or "", ablation=self.ablation)]

    @property
    def ablation(self) -> bool:
        """Whether its rows are ways of one method, not rivals."""
        return self.told is not None and self.told.ablation

    @property
    def others(self) -> str:
        """What to call :attr:`rivals`."""
        return "other rows" if self.ablation else "rivals"

    @cached_property
    def metrics(self) -> list[str]:
        """Known metrics that were measured, the one that decides first; a table always has one."""
        runs = [run for cell in self.cells.values() for run in cell["runs"]]
        found = [key for key in METRICS if any(run.get(key) is not None for run in runs)]
        decides = TASKS[self.task].key if self.task in TASKS else None
        return sorted(found, key=lambda key: key != decides)

    @property
    def first(self) -> dict[str, Any]:
        return next(iter(self.cells.values()))

    def values(self, arm: str, size: str, metric: str) -> dict[int, float]:
        """{seed: value} of the runs that have it."""
        runs = self.cells.get((arm, size), {}).get("runs", ())
        return {run["seed"]: run[metric] for run in runs if run.get(metric) is not None}

    def source(self, arm: str) -> dict[str, Any] | None:
        """Facts of the source that an arm starts from: its ``config.json`` as the bench kept it."""
        names = {cell.get("source") for (name, _), cell in self.cells.items() if name == arm}
        return next((self.sources[name] for name in names if name in self.sources), None)

    @cached_property
    def config(self) -> ViTConfig | None:
        """The shape that all sources share."""
        return next((ViTConfig.from_dict(facts["vit"]) for facts in self.sources.values()), None)


@dataclass
class Run:
    """A folder of a pre-training, a fine-tuning, or of a model or source that was made otherwise; it may lack parts.

    ``info`` is its ``config.json``, empty for an unfinished run.
    """

    folder: Path
    info: dict[str, Any]
    environment: dict[str, Any]
    recipe: str
    log: list[dict[str, Any]]

    @property
    def title(self) -> str:
        return self.folder.name or str(self.folder)

    @property
    def kind(self) -> str:
        return str(self.info.get("kind", "unfinished run"))

    def series(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of what was logged under ``key``."""
        return [(line["step"], line[key]) for line in self.log if "step" in line and _is_number(line.get(key))]

    def logged(self) -> list[str]:
        """Names of all numbers in the log."""
        return list(dict.fromkeys(key for line in self.log for key in line if key != "step" and self.series(key)))


def read(paths: Sequence[Path]) -> tuple[list[BenchTable], list[Run]]:
    """Every table and run of ``paths``, each once. Raises UserError naming a folder that has neither, or a bad file."""
    tables: dict[tuple[Path, str, str | None], BenchTable] = {}
    runs: dict[Path, Run] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder")
        if any((path / name).is_file() for name in RUN_FILES):
            runs[path.resolve()] = _read_run(path)
            continue
        found = _read_tables(path)
        if not found:
            raise UserError(f"{path}: holds neither a run nor results of sweet bench")
        tables |= {(table.folder.resolve(), table.task, table.set): table for table in found}
    return list(tables.values()), list(runs.values())


def _read_tables(root: Path) -> list[BenchTable]:
    tables: dict[tuple[Path, str, str | None], BenchTable] = {}
    for path in sorted(root.rglob("*.json")):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") for part in parts):
            continue
        value = read_json(path)
        if not (isinstance(value, dict) and "runs" in value):
            continue
        cell = _checked(path)
        key = (path.parent, str(cell.get("task", "classify")), cell.get("set"))
        if key not in tables:
            folder = path.parent.resolve()
            names = str(cell.get("protocol", folder.parent.name)), str(cell.get("table", folder.name))
            tables[key] = BenchTable(path.parent, *names, *key[1:], {}, _read_sources(path.parent.parent / "sources"))
        tables[key].cells[cell["arm"], cell["size"]] = cell
        tables[key].files.append(path)
    for (folder, *_), table in tables.items():
        if not table.metrics:
            raise UserError(f"{folder}: its cells have no metric that this version knows")
    known = list(dict.fromkeys((p.name, name) for (name, _), p in PROTOCOLS.items()))
    return sorted(tables.values(), key=lambda t: (_place((t.protocol, t.name), known), t.title))


def _checked(path: Path) -> dict[str, Any]:
    """A cell whose parts are all there. Raises UserError naming file and key."""
    try:
        cell = read_cell(path)
        for key in CELL_KEYS:
            if key not in cell:
                raise UserError(f"{path}: {key} is missing")
        Size.parse(cell["size"])
        for run in cell["runs"]:
            if "seed" not in run:
                raise UserError(f"{path}: a run without a seed")
            for metric in METRICS:
                if not (run.get(metric) is None or _is_number(run[metric])):
                    raise UserError(f"{path}: {metric} is {run[metric]!r}, expected a number")
    except (AttributeError, TypeError):
        raise UserError(f"{path}: not a result of sweet bench") from None
    except ValueError as problem:
        raise UserError(f"{path}: {problem}") from None
    if not cell["runs"]:
        raise UserError(f"{path}: has no run")
    return cell


def _read_sources(folder: Path) -> dict[str, dict[str, Any]]:
    """{name with hash: facts} of the sources beside a table."""
    told = [(path, read_json(path)) for path in sorted(folder.glob("*.json"))]
    for path, facts in told:
        try:
            ViTConfig.from_dict(facts["vit"])
            facts["source"], facts["training"]
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}: not a source of sweet bench") from None
    return {facts["source"]: facts for _, facts in told}


def _read_run(folder: Path) -> Run:
    info, environment = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in ("config.json", "env.json")
    )
    for name, value in (("config.json", info), ("env.json", environment)):
        if not isinstance(value, dict):
            raise UserError(f"{folder / name}: not written by sweet")
    recipe = folder / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else ""
    return Run(folder, info, environment, text, _read_log(folder / "metrics.jsonl"))


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of ``metrics.jsonl``; a last one that a killed run left unfinished is dropped."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = text.split("\n")[:-1]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as problem:
            raise UserError(f"{path}:{number}: not valid JSON ({problem})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not a line of a run's log")
        rows.append(row)
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ordered(found: Iterable[str], told: Iterable[str] | Mapping[str, Any]) -> list[str]:
    """What was found, once each: first in the order told, then as it was met."""
    there, order = list(dict.fromkeys(found)), list(told)
    return sorted(there, key=lambda name: _place(name, order))


def _place(value: Any, order: Sequence[Any]) -> int:
    return order.index(value) if value in order else len(order)
