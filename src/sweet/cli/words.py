"""Reading what stands on the command line besides options."""

from __future__ import annotations

import re
from glob import glob
from math import isfinite, nan
from pathlib import Path

from sweet.errors import UserError


def split_words(
    words: list[str] | None, data: str | None = None, log_with: list[str] | None = None
) -> tuple[str | None, list[str]]:
    """The one word that is not key=value (or None), and the overrides, those of options last."""
    overrides = [word for word in words or () if re.match(r"[\w.]+=", word)]
    plain = [word for word in words or () if word not in overrides]
    if len(plain) > 1:
        raise UserError(f"{plain[1]}: not understood after {plain[0]}; an override is written key=value")
    if data is not None:
        overrides.append(f"data.source={data}")
    if log_with:
        overrides.append(f"log_with=[{','.join(log_with)}]")
    return (plain[0] if plain else None), overrides


def conditioned_source(words: list[str]) -> tuple[str, bool]:
    """SOURCE of ``sweet convert``, and whether ``condition=true`` stands beside it. Raises UserError otherwise."""
    source, switches = split_words(words)
    if source is None:
        raise UserError("SOURCE is missing: sweet convert SOURCE --out DIR")
    for switch in switches:
        if switch not in ("condition=true", "condition=false"):
            raise UserError(f"{switch}: sweet convert has one switch: condition=true")
    return source, "condition=true" in switches


def expanded(option: str, words: list[str]) -> list[Path]:
    """Files and folders, those that a pattern such as ``photos/**/*.jpg`` stands for in its place.

    Raises UserError where there is none.
    """
    found: list[Path] = []
    for word in words:
        names = [word] if Path(word).exists() else sorted(glob(word, recursive=True))
        if not names:
            raise UserError(f"{option} {word}: no such file or folder")
        found += map(Path, names)
    return found


def listed(text: str | None) -> list[str] | None:
    """``a, b`` as a list; None stays None."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def counts(option: str, text: str) -> dict[str, int]:
    """``train=400,val=50`` as a mapping. Raises UserError naming ``option`` for anything else."""
    pairs = [word.partition("=")[::2] for word in listed(text) or ()]
    # of more digits Python may read no number
    if not pairs or not all(name and re.fullmatch(r"\d{1,18}", number) and int(number) for name, number in pairs):
        raise UserError(f"{option} {text}: expected SPLIT=N, or several with commas, as in train=400,val=50")
    return {name: int(number) for name, number in pairs}


def low_high(option: str, text: str) -> tuple[float, float]:
    """``0,4095`` as two numbers that rise. Raises UserError naming ``option`` for anything else."""
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        low, high = nan, nan
    if not low < high or not isfinite(high - low):
        raise UserError(f"{option} {text}: expected two numbers that rise, as in 0,4095")
    return low, high


def numbers(option: str, text: str | None) -> list[float] | None:
    """``0.5,0.5,0.5`` as numbers; None stays None. Raises UserError naming ``option`` for anything else."""
    if text is None:
        return None
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= value <= 1 for value in found) or (option == "--std" and 0 in found):
        raise UserError(f"{option} {text}: expected numbers of 0..1 with commas, as in 0.5,0.5,0.5")
    return found
