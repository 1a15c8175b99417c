"""The table of ``sweet data check``: what was found in a source, and what sweet will do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweet.errors import UserError
from sweet.files import BYTE_ORDER_MARKS

from .class_names import CLASSES_FILE
from .decode import ORDINARY
from .findings import Finding, counted, some_names
from .images import ImageSource
from .splits import is_hidden, split_folders, subfolders
from .stats import Depth, depth_handling, proposed_keys

USUAL = {  # suffixes of formats, as most people write them
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # of phones: a JPEG with a second picture inside
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
LONG = 4  # sides: what is longer is special to segmentation
TINY = 8  # pixels
TEXTS = (  # of sources, that somebody may have written
    *(CLASSES_FILE, "data.yaml", "*.csv", "*/*.csv", "annotations/*.json", "*/*.json"),
    *("labels/**/*.txt", "*/labels/*.txt"),
)
SHOWN_NAME = 32  # characters; longer names are cut in pictures
MARKUP = set("$^\\%|<>&`*[]")  # of TeX, Markdown, HTML and tables
LAST_LATIN = "\u024f"


@dataclass(frozen=True)
class Look:
    """What one pass over a split collected: see :class:`.check.Survey`."""

    split: str
    sizes: Sequence[tuple[int, int]]
    modes: Mapping[str, int]
    suffixes: Mapping[str, int]
    several: Mapping[str, int]
    rotated: int
    corrupt: Sequence[str]
    identical: int
    at_odds: Sequence[str]
    depth: Depth
    mean: list[float] | None
    std: list[float] | None


def use_table(images: ImageSource) -> list[Finding]:
    """A row about what the images of a split come with, and which task learns it."""
    if images.mask_classes is not None:
        found, handling = "a class for each pixel", "learned by --task segment"
    elif images.has_boxes:
        found = "boxes and outlines" if images.has_masks else "boxes alone"
        handling = "learned by --task detect; which classes an image has, by --task multilabel"
    elif images.labels is not None:
        found, handling = "one class an image", "learned by --task classify or generate"
    elif images.label_lists is not None:  # how many there are stands in another row
        return []
    else:
        found, handling = "images alone", "sweet pretrain learns from them; no task does"
    return [Finding(images.split, found, handling)]


def split_table(look: Look) -> list[Finding]:
    """Rows about the images of a split."""
    return [*_files(look), *_depths(look), *_sizes(look), *_damage(look)]


def _files(look: Look) -> list[Finding]:
    found = []
    for name, count in look.suffixes.items():
        found.append(Finding(look.split, f"{counted(count, 'image')} called {name}", "read as what it holds"))
    for contents, count in look.several.items():
        files = f"{counted(count, f'{contents} file')} of several images (frames, pages)"
        found.append(Finding(look.split, files, "the first one is taken, the others are left out"))
    return found


def _depths(look: Look) -> list[Finding]:
    depth, found = look.depth, []
    for mode, count in look.modes.items():
        handling = depth_handling(mode)
        if handling is None and mode != "RGB":
            handling = "see below: every value is mapped to 0..255"
        if handling is not None:
            found.append(Finding(look.split, f"{counted(count, 'image')} stored as {mode}", handling))
    if depth.low is not None:
        handling = "stretched to 0..255 by their type"
        if depth.value_range is not None:
            low, high = depth.value_range
            handling = f"{low:g} becomes 0, {high:g} becomes 255; {depth.clipped:.2g} % clipped, with the keys below"
        found.append(Finding(look.split, f"values from {depth.low:g} to {depth.high:g}", handling))
    if depth.blank:
        found.append(Finding(look.split, f"{depth.blank:.2g} % of the values are no numbers", "become 0, black"))
    odd = depth.channels not in ORDINARY
    if (odd or depth.value_range is not None) and look.mean and look.std:
        without = "refused" if odd or not depth.typed else "dark, with few levels,"
        keys = " ".join(proposed_keys(depth, look.mean, look.std))
        handling = f"{without} unless the recipe says {keys}"
        found.append(Finding(look.split, counted(depth.channels, "channel"), handling))
    return found


def _sizes(look: Look) -> list[Finding]:
    found = []
    long = sum(max(size) > LONG * min(size) for size in look.sizes)
    if look.rotated:
        handling = "turned upright; boxes and masks are those of the upright image"
        found.append(Finding(look.split, f"{counted(look.rotated, 'image')} that EXIF turns", handling))
    tiny = sum(min(size) < TINY for size in look.sizes)
    if long:
        handling = f"the centre is taken; detect pads; segment makes the long side {LONG} x the short one at most"
        found.append(Finding(look.split, f"{counted(long, 'image')} longer than {LONG} to 1", handling))
    if tiny:
        found.append(Finding(look.split, f"{counted(tiny, 'image')} below {TINY} pixels", "enlarged, like any other"))
    return found


def _damage(look: Look) -> list[Finding]:
    found = []
    if look.corrupt:
        handling = "a training stops and names it; with data.on_error=skip up to 0.1 % are left out and listed"
        handling += f"; the first: {look.corrupt[0]}"
        found.append(Finding(look.split, f"{counted(len(look.corrupt), 'image')} that cannot be used", handling))
    if look.identical:
        found.append(Finding(look.split, f"{counted(look.identical, 'group')} of identical images", "kept"))
    if look.at_odds:
        what = some_names(look.at_odds, "identical images with different labels")
        found.append(Finding(look.split, what, "kept: at most one of the labels is right", warn=True))
    return found


def name_table(names: Sequence[str]) -> list[Finding]:
    """Rows about names of classes that are hard to show."""
    odd = [name for name in names if not name.isprintable() or len(name) > SHOWN_NAME]
    plain = [name for name in names if name not in odd]
    rows = (
        (
            [ascii(name)[1:-1][:40] for name in odd],
            "class names that are long or cannot be printed",
            "kept in every file; pictures show escapes and the first 31 characters",
        ),
        (
            [name for name in plain if MARKUP & set(name)],
            "class names with signs of markup",
            "kept in every file; pictures and cards show the signs themselves",
        ),
        (
            [name for name in plain if max(name, default="") > LAST_LATIN],
            "class names beyond Latin letters",
            "kept in every file; pictures show escapes for what no font of this machine has",
        ),
        (
            [name for name in names if "," in name],
            "class names with commas",
            "sweet generate --classes takes the longest known name between commas",
        ),
    )
    return [Finding("", some_names(found, what), handling) for found, what, handling in rows if found]


def place_table(spec: str) -> list[Finding]:
    """Rows about the folder of a source: what lies beside the splits, and how its text files are written."""
    reader, _, rest = spec.partition(":")
    root = Path(rest).expanduser()
    if reader in ("hub", "stream", "shapes"):
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
    elif reader == "folder" and (inner := [name for name in subfolders(root) if split_folders(root / name)]):
        handling = f"taken for classes; for its splits say folder:{root / inner[0]}"
        found.append(Finding("", some_names(inner, "folders with splits inside"), handling, warn=True))
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
    ways = []
    if any(data.startswith(mark) for mark in BYTE_ORDER_MARKS):
        ways.append("begins with a byte order mark")
    elif not _is_utf8(data):
        ways.append("Latin-1, not UTF-8")
    if b"\r\n" in data:
        ways.append("lines end as on Windows")
    if file.suffix in (".txt", ".csv"):
        lines = data.splitlines()
        if any(b"\t" in line.strip() for line in lines):
            ways.append("tabs between its columns")
        if any(line != line.strip() for line in lines):
            ways.append("blanks around its lines")
    return ", ".join(ways)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def refusal(split: str, problem: UserError) -> Finding:
    """A row for what a training would not take."""
    return Finding(split, str(problem), "a training refuses it", warn=True)
