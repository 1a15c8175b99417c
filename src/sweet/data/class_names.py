"""Names of classes in text files."""

from __future__ import annotations

from pathlib import Path

from sweet.errors import UserError

CLASSES_FILE = "classes.txt"


def read_class_names(file: Path) -> list[str]:
    """One name a line, in UTF-8. Raises FileNotFoundError, and UserError for what is no text."""
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").rstrip().splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a text file") from None


def class_names_beside(file: Path) -> list[str] | None:
    """The names in ``classes.txt`` beside a file or in the folder above it; None where there is no such file."""
    for folder in (file.parent, file.parent.parent):
        if (folder / CLASSES_FILE).is_file():
            return read_class_names(folder / CLASSES_FILE)
    return None
