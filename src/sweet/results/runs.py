"""Folders of a pre-training, a fine-tuning, or of a model or source that was made otherwise. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from sweet.errors import UserError
from sweet.files import read_json
from sweet.storage.layout import TRAINING_LOG, VALIDATION_LOG
from sweet.storage.records import FolderRecord, parse_record

RUN_FILES = ("config.json", "metrics.jsonl", "recipe.yaml")


@dataclass(frozen=True)
class RunFolder:
    """What a folder says of itself; it may lack files. ``record`` is its ``config.json``, None for an unfinished run.

    ``log`` are the lines of its logs, of the training first.
    """

    folder: Path
    record: FolderRecord | None
    environment: dict[str, object]
    recipe: str
    log: list[dict[str, object]]

    @property
    def title(self) -> str:
        """The name of the folder."""
        return self.folder.name or str(self.folder)

    @property
    def kind(self) -> str:
        """``template``, ``dense``, ``model`` or ``unfinished run``."""
        return self.record.kind if self.record else "unfinished run"

    def series(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of what was logged under ``key``."""
        points = [(line.get("step"), line.get(key)) for line in self.log]
        return [(step, value) for step, value in points if _is_number(step) and _is_number(value)]

    def logged(self) -> list[str]:
        """Names of all numbers in the log."""
        keys = dict.fromkeys(key for line in self.log for key in line if key != "step")
        return [key for key in keys if self.series(key)]


def is_run(folder: Path) -> bool:
    """Whether a folder has a file that only runs have."""
    return any((folder / name).is_file() for name in RUN_FILES)


def read_run(folder: Path) -> RunFolder:
    """A run as far as its files are there. Raises UserError naming a damaged file."""
    config, machine, recipe = (folder / name for name in ("config.json", "env.json", "recipe.yaml"))
    record = parse_record(read_json(config), config) if config.is_file() else None
    environment = read_json(machine) if machine.is_file() else {}
    if not isinstance(environment, dict):
        raise UserError(f"{machine}: not written by sweet")
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else ""
    log = [line for name in (TRAINING_LOG, VALIDATION_LOG) for line in _read_log(folder / name)]
    return RunFolder(folder, record, environment, text, log)


def _read_log(path: Path) -> list[dict[str, object]]:
    """Lines of a log; a last one that a killed run left unfinished is dropped."""
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


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
