"""Reading what stands on the command line besides options."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sweet.errors import UserError
from sweet.storage.overwrite import NEW

if TYPE_CHECKING:
    from sweet.recipes.schema import FinetuneRecipe


def split_words(words: list[str] | None, data: str | None) -> tuple[str | None, list[str]]:
    """The one word that is not key=value (or None), and the overrides, --data last."""
    overrides = [word for word in words or () if re.match(r"[\w.]+=", word)]
    plain = [word for word in words or () if word not in overrides]
    if len(plain) > 1:
        raise UserError(f"{plain[1]}: not understood after {plain[0]}; an override is written key=value")
    if data is not None:
        overrides.append(f"data.source={data}")
    return (plain[0] if plain else None), overrides


def conditioned_source(words: list[str]) -> tuple[str, bool]:
    """SOURCE of ``sweet convert``, and whether ``condition=true`` stands beside it. Raises UserError otherwise."""
    source, switches = split_words(words, None)
    if source is None:
        raise UserError("SOURCE is missing: sweet convert SOURCE --out DIR")
    for switch in switches:
        if switch not in ("condition=true", "condition=false"):
            raise UserError(f"{switch}: sweet convert has one switch: condition=true")
    return source, "condition=true" in switches


def folder_and_recipe(
    option: str, words: list[str] | None, data: str | None, recipe: str | None, *, usage: str, anywhere: bool = False
) -> tuple[str, FinetuneRecipe]:
    """The folder and the recipe of a verb that fine-tunes: of a bundled name or a YAML path, with the overrides.

    ``anywhere``: it may also be a checkpoint that is no folder. Raises UserError where the folder, called
    ``option``, or the images are missing.
    """
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import FinetuneRecipe

    folder, overrides = split_words(words, data)
    if folder is None:
        raise UserError(f"{option} is missing: {usage}")
    if not (anywhere and (Path(folder).is_file() or re.match(r"timm:|(hub:)?[\w.-]+/[\w.-]+(@|$)", folder))):
        check_folder(option, Path(folder))
    loaded = load_recipe(FinetuneRecipe, recipe, overrides)
    need_source(loaded.data.source)
    return folder, loaded


def after_restart(resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """--resume and --overwrite as they are meant where ``torchrun --max-restarts`` starts a process again."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return resume or again, overwrite and not again


def saved_recipe(out: Path, resume: bool) -> str | None:
    """The recipe of the run to resume, so that `--out DIR --resume` alone continues it."""
    saved = (folder / "recipe.yaml" for folder in (out / NEW, out))  # of what an interrupted --overwrite began, first
    return next((str(path) for path in saved if resume and path.is_file()), None)


def need_source(source: str | None) -> None:
    """Raises UserError where neither --data nor a recipe names images."""
    if source is None:
        raise UserError("--data is missing, and the recipe has no data.source")


def check_folder(option: str, path: Path) -> None:
    """Raises UserError unless ``path``, given as ``option``, is a folder."""
    if not path.is_dir():
        raise UserError(f"{option} {path}: no such folder")


def check_apart(out: Path, option: str, source: str) -> None:
    """Raises UserError where ``out`` is the folder ``source`` that is read, given as ``option``."""
    if Path(source).is_dir() and out.resolve() == Path(source).resolve():
        raise UserError(f"--out {out}: is {option} itself")


def listed(text: str | None) -> list[str] | None:
    """``a, b`` as a list; None stays None."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def counts(option: str, text: str) -> dict[str, int]:
    """``train=400,val=50`` as a mapping. Raises UserError naming ``option`` for anything else."""
    pairs = [word.partition("=")[::2] for word in listed(text) or ()]
    if not pairs or not all(name and number.isdecimal() and int(number) for name, number in pairs):
        raise UserError(f"{option} {text}: expected SPLIT=N, or several with commas, as in train=400,val=50")
    return {name: int(number) for name, number in pairs}


def numbers(option: str, text: str | None) -> list[float] | None:
    """``0.5,0.5,0.5`` as numbers; None stays None. Raises UserError naming ``option`` for anything else."""
    if text is None:
        return None
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= value < 1e4 for value in found) or (option == "--std" and 0 in found):
        raise UserError(f"{option} {text}: expected numbers of 0..1 with commas, as in 0.5,0.5,0.5")
    return found
