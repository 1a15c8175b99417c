"""Reading what stands on the command line besides options."""

from __future__ import annotations

import re
from pathlib import Path

from sweet.errors import UserError


def split_words(words: list[str] | None, data: str | None) -> tuple[str | None, list[str]]:
    """The one word that is not key=value (or None), and the overrides, --data last."""
    overrides = [word for word in words or () if re.match(r"[\w.]+=", word)]
    plain = [word for word in words or () if word not in overrides]
    if len(plain) > 1:
        raise UserError(f"{plain[1]}: not understood after {plain[0]}; an override is written key=value")
    if data is not None:
        overrides.append(f"data.source={data}")
    return (plain[0] if plain else None), overrides


def saved_recipe(out: Path, resume: bool) -> str | None:
    """The recipe of the run to resume, so that `--out DIR --resume` alone continues it."""
    saved = out / "recipe.yaml"
    return str(saved) if resume and saved.is_file() else None


def need_source(source: str | None) -> None:
    if source is None:
        raise UserError("--data is missing, and the recipe has no data.source")


def check_folder(word: str, path: Path) -> None:
    if not path.is_dir():
        raise UserError(f"{word} {path}: no such folder")


def listed(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def counts(option: str, text: str) -> dict[str, int]:
    """``train=400,val=50`` as a mapping."""
    pairs = [word.partition("=")[::2] for word in listed(text) or ()]
    if not pairs or not all(name and number.isdecimal() and int(number) for name, number in pairs):
        raise UserError(f"{option} {text}: expected SPLIT=N, or several with commas, as in train=400,val=50")
    return {name: int(number) for name, number in pairs}
