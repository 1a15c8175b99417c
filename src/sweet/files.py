"""Folders on disk: written atomically, checked by hash, read without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path, PurePath
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
    """A temporary name (it starts with a dot) that becomes ``path``, readable by all, only if the block succeeds.

    An OSError of it (a full disk) names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as problem:
        if problem.errno is None or problem.filename not in (None, name, str(path.parent)):
            raise
        raise OSError(problem.errno, problem.strerror, str(path)) from None
    finally:
        with suppress(OSError):  # a disk that became read-only
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """fsync a file or folder, so that a rename never becomes visible before the bytes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """UTF-8, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, complete or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def as_latin(data: bytes) -> str:
    """Bytes that are no UTF-8, as Windows writes Latin-1; what it lacks becomes U+FFFD."""
    return data.decode("cp1252", errors="replace")


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
        text = as_latin(data)
    if "\0" in text or "\ufffd" in text:
        raise UserError(f"{path}: not a text file")
    return text


def read_json(path: Path) -> Any:
    """Raises UserError naming the file when it is missing or not JSON."""
    try:
        return json.loads(decode_text(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except RecursionError:
        raise UserError(f"{path}: not valid JSON (nested too deeply)") from None
    except ValueError as problem:  # no JSON, no UTF-8, or a number of thousands of digits
        raise UserError(f"{path}: not valid JSON ({str(problem)[:200]})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file of tensors on any device, complete or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as problem:  # a full disk, in the words of another library
            found = re.search(r"\(os error (\d+)\)", str(problem))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from None


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


def read_sums(folder: Path) -> dict[str, str]:
    """{file: its recorded hash} of SHA256SUMS; empty where a folder has none.

    Raises UserError for a file that is no such list, or names what is not inside the folder.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file") from None
    sums: dict[str, str] = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not name:
            raise UserError(f"{path}: not a list of SHA256 sums ({line[:80]!r})")
        if "\0" in name or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise UserError(f"{path}: names {name[:80]!r}, which is not in the folder")
        sums[name] = digest
    if not sums:
        raise UserError(f"{path}: names no file")
    return sums


def check_sums(folder: Path) -> dict[str, bool]:
    """{file: its hash is the recorded one}; empty where a folder has no SHA256SUMS.

    Raises UserError as :func:`read_sums` does.
    """
    return {
        name: (folder / name).is_file() and sha256(folder / name) == digest
        for name, digest in read_sums(folder).items()
    }


_verifying: ContextVar[bool] = ContextVar("verifying", default=True)


@contextmanager
def verifying(on: bool) -> Iterator[None]:
    """Whether sums are checked when folders are loaded in this block. They are by default."""
    token = _verifying.set(on)
    try:
        yield
    finally:
        _verifying.reset(token)


def match_sums(folder: Path, names: Sequence[str]) -> None:
    """Check files against SHA256SUMS, where a folder has one and :func:`verifying` is on.

    Raises UserError naming the first that differs.
    """
    sums = read_sums(folder) if _verifying.get() else {}
    for name in names if sums else ():
        path = folder / name
        if name not in sums:
            raise UserError(f"{folder / SUMS}: does not name {name}")
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        seen = os.stat(path)  # read once, however often it is loaded, as long as it stays the same
        if _sha256_of(path.absolute(), seen.st_size, seen.st_mtime_ns, seen.st_ino) != sums[name]:
            raise UserError(f"{path}: its SHA256 is not the one in {SUMS}: damaged or changed (--no-verify loads it)")


@lru_cache(maxsize=256)
def _sha256_of(path: Path, *_seen: int) -> str:
    return sha256(path)
