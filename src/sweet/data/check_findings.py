"""What ``sweet data check`` says of a source without a look at its pixels: its use, its names, its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweet.files import BYTE_ORDER_MARKS

from .class_names import CLASSES_FILE
from .findings import Finding, some_names
from .images import ImageSource
from .splits import is_hidden, split_folders, subfolders

TEXTS = (  # of sources, that somebody may have written
    *(CLASSES_FILE, "data.yaml", "*.csv", "*/*.csv", "annotations/*.json", "*/*.json"),
    *("labels/**/*.txt", "*/labels/*.txt"),
)
SHOWN_NAME = 32  # characters; longer names are cut in pictures
MARKUP = set("$^\\%|<>&`*[]")  # of TeX, Markdown, HTML and tables
LAST_LATIN = "\u024f"


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
