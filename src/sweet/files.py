"""Folders on disk: written atomically, checked by hash, read without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SUMS = "SHA256SUMS"


def cache_folder() -> Path:
    """$SWEET_CACHE, by default ``sweet`` in the user's cache folder; it need not exist yet.

    It holds what can be made again, but not quickly: decoded images, and sources and checkpoints of a bench.
    """
    home = os.environ.get("SWEET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sweet"
    return Path(home).expanduser()


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"group.key": value} of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name (it starts with a dot) that becomes ``path`` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """fsync a file or folder, so that a rename never becomes visible before the bytes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: not valid JSON ({problem})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, metadata)
        temporary.chmod(0o644)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises UserError naming the file when it is missing or not safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as problem:
        raise UserError(f"{path}: not a safetensors file ({problem})") from None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, files: Mapping[str, Path]) -> None:
    """SHA256SUMS of files (name -> where its bytes are now), in the format of ``sha256sum -c``."""
    write_text(folder / SUMS, "".join(f"{sha256(path)}  {name}\n" for name, path in sorted(files.items())))


def check_sums(folder: Path) -> dict[str, bool]:
    """{file: its hash is the recorded one}; empty where a folder has no SHA256SUMS."""
    if not (folder / SUMS).is_file():
        return {}
    lines = (folder / SUMS).read_text().splitlines()
    pairs = [line.split("  ", 1) for line in lines if "  " in line]
    return {name: (folder / name).is_file() and sha256(folder / name) == digest for digest, name in pairs}
