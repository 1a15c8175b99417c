"""What ``page.html`` shows: sections of parts, each a grid, a heat map, drawings or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import yaml

from sweet.results.rows import Block, Grid

from .draw import Drawing
from .strip import Strip


@dataclass(frozen=True)
class HeatCell:
    """A difference: its text, half of its 95 % interval, a mark of its verdict, the strength of its colour (0 to 1)."""

    text: str
    error: str
    mark: str
    style: str
    alpha: float
    title: str


@dataclass(frozen=True)
class HeatMap:
    """{group: {arm: a cell for each column}}, all against ``main``."""

    main: str
    unit: str
    columns: Sequence[str]
    groups: Mapping[str, Mapping[str, Sequence[HeatCell | None]]]


@dataclass(frozen=True)
class Sheet:
    """A picture as a data URI with a text beside each of its rows."""

    image: str
    rows: Sequence[str]


@dataclass(frozen=True)
class Part:
    """A titled part of a section; it is left out where it shows nothing."""

    title: str
    grid: Grid | None = None
    note: str = ""
    look: Literal["numbers", "words", "narrow"] = "numbers"
    folded: bool = False
    text: str = ""
    heat: HeatMap | None = None
    drawings: Sequence[Drawing] = ()
    sheet: Sheet | None = None

    @classmethod
    def of(cls, block: Block) -> Part:
        """A block of a table."""
        return cls(block.title, block.grid, block.note, "words" if block.words else "numbers", block.folded)

    @property
    def shown(self) -> bool:
        """Whether there is anything to show."""
        return bool(
            (self.grid and self.grid.lines) or self.note or self.text or self.heat or self.drawings or self.sheet
        )


@dataclass(frozen=True)
class Section:
    """A table or a run: what is read first, ``parts`` below it.

    ``name`` is a table's own; its ``title`` is a question. ``notes`` and ``properties`` are what to know
    before the numbers, folded where there is a ``chart``; ``folded`` are the parts too. ``glossary`` explains names
    where they are touched.
    """

    id: str
    title: str
    sentence: str
    properties: Mapping[str, str]
    parts: Sequence[Part]
    name: str = ""
    chart: Drawing | None = None
    strip: Strip | None = None
    notes: Sequence[str] = ()
    glossary: Mapping[str, str] = field(default_factory=dict)
    folded: bool = False


def pairs(values: Mapping[str, object]) -> Grid:
    """Keys and values as a grid without heads; mappings are left out."""
    return Grid(("", " "), tuple((key, text(value)) for key, value in values.items() if not isinstance(value, Mapping)))


def as_yaml(value: object) -> str:
    """For people; empty where there is nothing."""
    return yaml.safe_dump(value, sort_keys=False, width=100) if value else ""


def text(value: object) -> str:
    """A value for people: large numbers with commas, small ones with five digits."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return str(value)
