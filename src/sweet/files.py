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
    """UTF-8, readable by all, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, complete or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def decode_text(path: Path) -> str:
    """A text file that somebody wrote: UTF-8, with or without a byte order mark, UTF-16 with one, else Latin-1.

    Raises FileNotFoundError, and UserError for what is no text.
    """
    data = path.read_bytes()
    named = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    try:
        text = data.decode(named or "utf-8")
    except UnicodeDecodeError:
        if named:
            raise UserError(f"{path}: not a text file") from None
        text = data.decode("cp1252", errors="replace")  # Latin-1 as Windows has it
    if "\0" in text or "\ufffd" in text:
        raise UserError(f"{path}: not a text file")
    return text


def read_json(path: Path) -> Any:
    """Raises UserError naming the file when it is missing or not JSON."""
    try:
        return json.loads(decode_text(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: not valid JSON ({problem})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file of tensors on any device, complete or not at all."""
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
    """SHA-256 of a file's bytes in hexadecimal."""
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
