"""Whose a folder is: what sweet wrote into it, and what it did not."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweet.errors import UserError
from sweet.files import SUMS, read_sums
from sweet.version import VERSION

FAMILY, STARTS = "family.json", ".starts"  # a family, and beside it where models wait for their fine-tuning
MARKER = ".sweet"
"""Lies in every folder that a verb fills, from before the first byte of a result. Only sweet writes it.

Names that begin with it are sweet's own too.
"""

FILES = ("config.json", "recipe.yaml", "README.md", SUMS, "metrics.jsonl", "env.json", "report.html")
NONFINITE = "nonfinite.json"
RUN_NOTES = ("validation.jsonl", "skipped.jsonl", NONFINITE)
TENSOR_FILES = ("model.safetensors", "template.safetensors")
FOLDERS = {"checkpoints": r"\.?(nonfinite-)?step-\d+.*", "tensorboard": r".*", "pictures": r".+\.(png|json)"}
"""Of a run: its folders, and the names in them."""
WRITES = re.compile(
    rf"{SUMS}|events\.out\..+|classes\.txt|.+\.(json|jsonl|md|png|svg|html|safetensors|yaml|parquet|onnx|onnx\.data)"
)
"""Names of files that verbs write which name their files themselves."""
LEFTOVER = re.compile(rf"\.({WRITES.pattern})\.[a-z0-9_]{{8}}")
"""A file that was being written when its process was killed (``sweet.files.replacing``)."""
STEP = re.compile(r"\.step-\d+")
BEGUN = ".begun"  # the end of the name of a folder that is being filled, and begins with a dot


@dataclass(frozen=True)
class Marker:
    """What the marker of a folder says.

    ``pid`` and ``host`` are those of the process that fills the folder now, or was killed while it did. ``files`` are
    the relative paths that a finished verb wrote; None for a run, whose names are known.
    """

    sweet: str = VERSION
    pid: int | None = None
    host: str | None = None
    files: tuple[str, ...] | None = None

    def write(self, folder: Path) -> None:
        """In place: one that a kill cut off still is a marker."""
        (folder / MARKER).write_text(json.dumps({k: v for k, v in vars(self).items() if v is not None}) + "\n")

    @classmethod
    def of(cls, folder: Path) -> Marker | None:
        """None where a folder has no marker. One that is damaged still is a marker, and says nothing."""
        path = folder / MARKER
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            files = values.get("files")
            return cls(
                str(values.get("sweet")),
                values["pid"] if isinstance(values.get("pid"), int) else None,
                values["host"] if isinstance(values.get("host"), str) else None,
                tuple(map(str, files)) if isinstance(files, list) else None,
            )
        except (ValueError, AttributeError, RecursionError):
            return cls()


def entries(folder: Path) -> list[Path]:
    """What a folder holds besides sweet's own notes."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(MARKER))


def files_below(folder: Path) -> Iterator[str]:
    """Relative paths of all files below a folder, sweet's own notes left out; links are not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(MARKER))
        for name in sorted(files):
            if not name.startswith(MARKER):
                yield (Path(place) / name).relative_to(folder).as_posix()


def foreign(folder: Path) -> list[str] | None:
    """Names in a folder that sweet did not write; None where nothing says that sweet wrote any of it.

    A folder of before the marker counts as sweet's by a SHA256SUMS that lists sweet's ``config.json``.
    """
    marker, listed = Marker.of(folder), _listed(folder)
    if marker is None and not _written_before(folder, listed):
        return None
    known = {*listed, *FILES, *RUN_NOTES, *TENSOR_FILES, *((marker.files or ()) if marker else ())}
    filled = marker is not None and marker.pid is not None and marker.files is not None
    names: list[str] = []
    for entry in entries(folder):
        names += _foreign_below(folder, entry, known, filled=filled, recorded=marker is not None)
    return names


def in_the_way(folder: Path) -> list[str]:
    """Names that verbs write, in a folder that nothing shows to be sweet's: somebody else's, which would be lost."""
    machine = _keys(folder / "env.json")  # of a run and of a bench, also where a copy has left the marker behind
    ours = foreign(folder) is not None or (folder / FAMILY).is_file() or not machine.isdisjoint(("torch", "bench"))
    known = {*FILES, *RUN_NOTES, *TENSOR_FILES, *FOLDERS}
    return [] if ours else [path.name for path in entries(folder) if path.name in known]


def _foreign_below(folder: Path, entry: Path, known: set[str], *, filled: bool, recorded: bool) -> list[str]:
    """``filled``: the verb that names its own files did not come to its end, so that every such name is its."""
    name = entry.name
    if entry.is_symlink():
        return [name]
    if not entry.is_dir():
        ours = name in known or LEFTOVER.fullmatch(name) or (filled and WRITES.fullmatch(name))
        return [] if ours else [name]
    if name in FOLDERS:
        return [f"{name}/{path.name}" for path in sorted(entry.iterdir()) if not re.fullmatch(FOLDERS[name], path.name)]
    below = [f"{name}/{path}" for path in files_below(entry)]
    if not recorded and not any(path in known for path in below):
        return [f"{name}/"]
    left = [
        path
        for path in below
        if path not in known
        and not LEFTOVER.fullmatch(Path(path).name)
        and not (filled and WRITES.fullmatch(Path(path).name))
    ]
    return left if below else [f"{name}/"]


def written(folder: Path, before: list[str]) -> tuple[str, ...]:
    """What a verb that names its own files has in a folder at its end; ``before`` are the names that were not its."""
    strange = set(before)
    return tuple(
        path
        for path in files_below(folder)
        if WRITES.fullmatch(path.rpartition("/")[2])
        and path not in strange
        and not any(path.startswith(name) for name in strange if name.endswith("/"))
    )


def sweep(folder: Path, *, older: float = 0.0) -> None:
    """Delete what killed processes were writing below a folder of sweet's, if it is ``older`` (seconds)."""
    limit = time.time() - older
    for place, folders, files in os.walk(folder):
        for name in files:
            path = Path(place) / name
            if LEFTOVER.fullmatch(name) and _unchanged_since(limit, path):
                path.unlink(missing_ok=True)
        steps = Path(place).name == "checkpoints"
        for name in list(folders):
            begun = (name.startswith(".") and name.endswith(BEGUN)) or (steps and STEP.fullmatch(name))
            if begun and _unchanged_since(limit, Path(place) / name):
                shutil.rmtree(Path(place) / name, ignore_errors=True)
                folders.remove(name)


def _unchanged_since(limit: float, path: Path) -> bool:
    """False as well for what another process has taken away by now."""
    try:
        return path.lstat().st_mtime <= limit
    except OSError:
        return False


def _listed(folder: Path) -> set[str]:
    try:
        return set(read_sums(folder))
    except (UserError, OSError):
        return set()


def _written_before(folder: Path, listed: set[str]) -> bool:
    return "config.json" in listed and "sweet" in _keys(folder / "config.json")


def _keys(file: Path) -> set[str]:
    """Of the object in a JSON file; none where there is no such file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return set(values) if isinstance(values, dict) else set()
