"""What lies in a folder that sweet writes, and how it is written: completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet.errors import UserError
from sweet.files import replacing, write_sums, write_tensors, write_text

from .ownership import FAMILY, entries

if TYPE_CHECKING:
    from torch import Tensor

    from .records import FolderRecord

TENSORS = {"template": "template.safetensors", "dense": "model.safetensors", "model": "model.safetensors"}

TRAINING_LOG, VALIDATION_LOG = "metrics.jsonl", "validation.jsonl"
RUN_FILES = ["config.json", "recipe.yaml", "README.md", "SHA256SUMS", TRAINING_LOG, "tensorboard/", "checkpoints/"]


def claim(out: Path, *, resume: bool, overwrite: bool = False) -> None:
    """Refuse a non-empty output folder unless it is to be resumed or overwritten. Writes nothing.

    Raises UserError naming the folder.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: exists and is not a folder")
    if entries(out) and not (resume or overwrite):
        onward = "use --resume to go on or --overwrite to start anew" if _was_begun(out) else "--overwrite replaces it"
        raise UserError(f"--out {out}: not empty; {onward}")


def _was_begun(folder: Path) -> bool:
    """Whether a training was begun there: only such a folder can be resumed."""
    return any((folder / name).exists() for name in ("checkpoints", TRAINING_LOG, FAMILY))


def write_folder(
    out: Path,
    tensors: tuple[str, Mapping[str, Tensor]],
    config: FolderRecord | Mapping[str, Any],
    recipe: str,
    card: str,
    more: Mapping[str, str] | None = None,
) -> None:
    """A template or model folder; ``more`` are further text files, name -> text."""
    name, values = tensors
    write_tensors(out / name, values)
    complete_folder(out, [name], config, {"recipe.yaml": recipe, "README.md": card, **(more or {})})


def complete_folder(
    out: Path, written: list[str], config: FolderRecord | Mapping[str, Any], texts: Mapping[str, str]
) -> None:
    """The texts, the sums of them and of what is ``written`` already, and at last ``config.json``: "complete"."""
    values = config if isinstance(config, Mapping) else config.to_dict()
    for name, text in texts.items():
        write_text(out / name, text)
    with replacing(out / "config.json") as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        write_sums(out, {name: out / name for name in (*written, *texts)} | {"config.json": temporary})
