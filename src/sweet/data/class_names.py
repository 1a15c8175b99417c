"""Names of classes: in text files of any editor, and as one spelling of each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from sweet.errors import UserError
from sweet.files import as_latin, decode_text

CLASSES_FILE = "classes.txt"
UNDECODED = re.compile("[\udc80-\udcff]")  # bytes of a file's name, as Python holds those that are not UTF-8
NUMBERED = re.compile(r"(\d+)\s*[:=\t]\s*(\S.*)")  # 255: road


def one_spelling(name: str) -> str:
    """Composed (NFC): macOS writes an accent as a character of its own, others do not, and both look the same.

    A folder's name that is not UTF-8, of an old archive, is read as Latin-1, as text files are: no JSON could hold it.
    """
    if UNDECODED.search(name):
        name = as_latin(name.encode("utf-8", "surrogateescape"))
    return unicodedata.normalize("NFC", name)


def on_disk(folder: Path, name: str) -> Path | None:
    """The file of a name that may be spelled (composed, decomposed) in another way; None where there is none."""
    spellings = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((folder / spelling for spelling in spellings if (folder / spelling).is_file()), None)


def read_class_names(file: Path) -> list[str]:
    """One name a line, without blanks around it, whatever editor wrote the file.

    Raises FileNotFoundError, and UserError for what is no text.
    """
    return [one_spelling(line.strip()) for line in decode_text(file).rstrip().splitlines()]


def numbered(names: list[str]) -> dict[int, str] | None:
    """{number: name} where every line is ``NUMBER: NAME``; else None: the lines count from 0."""
    found = [NUMBERED.fullmatch(name) for name in names]
    return {int(match[1]): match[2] for match in found if match} if names and all(found) else None


def class_names_beside(file: Path) -> list[str] | None:
    """The names in ``classes.txt`` beside a file or in the folder above it; None where there is no such file."""
    for folder in (file.parent, file.parent.parent) if file.is_file() else ():  # a set of the hub is no file
        if (folder / CLASSES_FILE).is_file():
            return read_class_names(folder / CLASSES_FILE)
    return None


def check_distinct(where: str, names: Iterable[str]) -> None:
    """Raises UserError for two names that look the same, or differ in blanks around them only."""
    seen: dict[str, str] = {}
    for name in names:
        key = one_spelling(name).strip()
        if not key:
            raise UserError(f"{where}: a class without a name")
        if key in seen:
            raise UserError(f"{where}: two classes are called {key}")
        seen[key] = name
