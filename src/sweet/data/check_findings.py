"""The table of ``sweet data check``: what was found in a source, and what sweet will do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweet.errors import UserError
from sweet.files import BYTE_ORDER_MARKS

from .class_names import CLASSES_FILE
from .findings import Finding, counted, some_names
from .splits import is_hidden, split_folders, subfolders
from .stats import Depth, depth_handling, proposed_keys

LONG = 4  # sides: what is longer is special to segmentation
TINY = 8  # pixels
TEXTS = (  # of sources, that somebody may have written
    *(CLASSES_FILE, "data.yaml", "*.csv", "*/*.csv", "annotations/*.json", "*/*.json"),
    *("labels/**/*.txt", "*/labels/*.txt"),
)
SHOWN_NAME = 32  # characters; longer names are cut in pictures


@dataclass(frozen=True)
class Look:
    """What one pass over a split collected: see :class:`.check.Survey`."""

    split: str
    sizes: Sequence[tuple[int, int]]
    modes: Mapping[str, int]
    turned: int
    corrupt: Sequence[str]
    identical: int
    depth: Depth
    mean: list[float] | None
    std: list[float] | None


def split_table(look: Look) -> list[Finding]:
    """Rows about the images of a split."""
    return [*_depths(look), *_sizes(look), *_damage(look)]


def _depths(look: Look) -> list[Finding]:
    depth, found = look.depth, []
    values = f"values from {depth.low:g} to {depth.high:g}" if depth.low is not None else ""
    for mode, count in look.modes.items():
        handling = depth_handling(mode)
        if handling is None and mode != "RGB":
            handling = "see below: every value is mapped to 0..255"
        if handling is not None:
            found.append(Finding(look.split, f"{counted(count, 'image')} stored as {mode}", handling))
    if depth.value_range is not None:
        low, high = depth.value_range
        text = f"{low:g} becomes 0, {high:g} becomes 255; {depth.clipped:.2g} % clipped, with the keys below"
        found.append(Finding(look.split, values, text))
    elif depth.low is not None:
        found.append(Finding(look.split, values, "stretched to 0..255 by their type"))
    if (depth.channels not in (1, 3) or depth.value_range is not None) and look.mean and look.std:
        keys = " ".join(proposed_keys(depth, look.mean, look.std))
        found.append(Finding(look.split, f"{depth.channels} channels", f"refused unless the recipe says {keys}"))
    return found


def _sizes(look: Look) -> list[Finding]:
    found = []
    long = sum(max(size) > LONG * min(size) for size in look.sizes)
    if look.turned:
        handling = "turned upright; boxes and masks are those of the upright image"
        found.append(Finding(look.split, f"{counted(look.turned, 'image')} that EXIF turns", handling))
    tiny = sum(min(size) < TINY for size in look.sizes)
    if long:
        handling = f"classify takes the centre; detect pads; segment makes the long side {LONG} x the short one at most"
        found.append(Finding(look.split, f"{counted(long, 'image')} longer than {LONG} to 1", handling))
    if tiny:
        found.append(Finding(look.split, f"{counted(tiny, 'image')} below {TINY} pixels", "enlarged, like any other"))
    return found


def _damage(look: Look) -> list[Finding]:
    found = []
    if look.corrupt:
        handling = "a training stops and names it; with data.on_error=skip up to 0.1 % are left out and listed"
        found.append(Finding(look.split, f"{counted(len(look.corrupt), 'image')} that cannot be used", handling))
    if look.identical:
        found.append(Finding(look.split, f"{counted(look.identical, 'group')} of identical images", "kept"))
    return found


def name_table(names: Sequence[str]) -> list[Finding]:
    """Rows about names of classes that are hard to show."""
    odd = [name for name in names if not name.isprintable() or len(name) > SHOWN_NAME]
    commas = [name for name in names if "," in name]
    found = []
    if odd:
        shown = [ascii(name)[1:41] for name in odd]
        handling = "kept in every file; pictures show escapes and the first 31 characters"
        found.append(Finding("", some_names(shown, "class names that are long or cannot be printed"), handling))
    if commas:
        handling = "sweet generate --classes takes the longest known name between commas"
        found.append(Finding("", some_names(commas, "class names with commas"), handling))
    return found


def place_table(spec: str) -> list[Finding]:
    """Rows about the folder of a source: what lies beside the splits, and how its text files are written."""
    reader, _, rest = spec.partition(":")
    root = Path(rest).expanduser()
    if reader in ("hub", "shapes"):
        return []
    if not root.is_dir():
        return _writings([root] if root.suffix in (".csv", ".json", ".yaml") else [])
    found = []
    images = root / "images" if reader == "masks" else root
    hidden = [entry.name for entry in root.iterdir() if is_hidden(entry.name)]
    if hidden:
        found.append(Finding("", f"{some_names(sorted(hidden))} in {root.name}", "left out"))
    if reader in ("folder", "masks") and (splits := split_folders(images)):
        others = [name for name in subfolders(images) if name not in splits]
        if others:
            found.append(Finding("", some_names(others, "folders beside the splits"), "left out", warn=True))
    return found + _writings(sorted({file for pattern in TEXTS for file in root.glob(pattern)}))


def _writings(files: Sequence[Path]) -> list[Finding]:
    """A row for each way in which text files are written that is not plain UTF-8."""
    odd: dict[str, list[str]] = {}
    for file in files:
        if file.is_file() and (way := _writing(file)):
            odd.setdefault(way, []).append(file.name)
    return [Finding("", f"{some_names(names)}: {way}", "read as such") for way, names in odd.items()]


def _writing(file: Path) -> str:
    data = file.read_bytes()
    if any(data.startswith(mark) for mark in BYTE_ORDER_MARKS):
        return "begins with a byte order mark"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "Latin-1, not UTF-8"
    if b"\r\n" in data:
        return "lines end as on Windows"
    blanks = file.suffix in (".txt", ".csv") and any(line != line.strip() for line in data.splitlines())
    return "blanks around its lines" if blanks else ""


def refusal(split: str, problem: UserError) -> Finding:
    """A row for what a training would not take."""
    return Finding(split, str(problem), "a training refuses it", warn=True)
