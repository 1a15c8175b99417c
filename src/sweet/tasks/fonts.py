"""Fonts of names in pictures: what the plain font lacks comes from a font of this machine, or becomes an escape."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from PIL import ImageFont

PLAIN = "DejaVu Sans"  # comes with matplotlib
# files of fonts for other scripts, by the names that systems give them
OTHERS = re.compile(
    r"cjk|noto.?sans|source.?han|wqy|wenquan|fallback|unifont|arial.?uni|ipa.?g|takao|nanum|msyh|simhei|simsun|meiryo|"
    r"yugoth|malgun|gulim|pingfang|hiragino|gothicneo|nirmala|leelawad|mangal",
    re.I,
)
PROBES = "花あ한กअ"  # a letter of each script that is looked for


@cache
def files() -> tuple[str, ...]:
    """The plain font, and one font of this machine for each script that it lacks, where there is one."""
    found: list[str] = [str(font_manager.findfont(PLAIN))]
    if all(has(found[0], letter) for letter in PROBES):
        return tuple(found)
    names = (str(path) for path in font_manager.findSystemFonts() if OTHERS.search(Path(path).name))
    others = sorted(names, key=lambda path: ("Regular" not in path, "Sans" not in path, path))
    for letter in PROBES:
        if not any(has(path, letter) for path in found):
            found += [path for path in others if has(path, letter)][:1]
    return tuple(found)


@cache
def families() -> tuple[str, ...]:
    """The same by name, known to matplotlib."""
    for path in files()[1:]:
        font_manager.fontManager.addfont(path)
    return (PLAIN, *(font_manager.FontProperties(fname=path).get_name() for path in files()[1:]))


@cache
def has(path: str, letter: str) -> bool:
    """Whether a font file can draw a letter; False for one that cannot be read."""
    try:
        return font_manager.get_font(path).get_char_index(ord(letter)) != 0
    except (RuntimeError, OSError):
        return False


def visible(text: str) -> str:
    """One line of text in which everything can be seen: the rest is written as escapes."""
    return "".join(
        letter
        if letter.isprintable() and any(has(path, letter) for path in files())
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def width(text: str) -> int:
    """Of a text in columns of a terminal: letters of East Asia take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def pillow_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of so many pixels that can draw most of a text."""
    best = max(files(), key=lambda path: sum(has(path, letter) for letter in text))
    return ImageFont.truetype(best, size)
