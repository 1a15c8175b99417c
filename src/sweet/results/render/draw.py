"""Drawings for a page: matplotlib figures as inline SVG that takes the page's colour of text, pixels as data URIs."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from sweet.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

INK = "#010203"  # stands for the page's own colour of text, on white and on black
DECIMALS = re.compile(r"(\.\d\d)\d+")  # a hundredth of a pixel is enough: a page has hundreds of pictures
WIDTH, HEIGHT = 4.6, 3.0  # inches: near the width of a phone, so that its text is readable there
STYLE: Any = {  # matplotlib types each key
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "text.parse_math": False,  # a dollar in a name is a dollar
} | {
    key: INK
    for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """An ``<svg>`` element and what it shows."""

    svg: str
    caption: str


def style() -> AbstractContextManager[None]:
    """All drawing for a page happens inside: matplotlib looks up fonts and colours while it draws."""
    return rc_context(STYLE)


def axes(height: float = HEIGHT) -> Axes:
    """Empty axes of a figure, so many inches high."""
    return Figure(figsize=(WIDTH, height), layout="constrained").add_subplot()


def apart(values: Sequence[float], least: float) -> list[float]:
    """Places near ``values``, in their order, no two of them nearer than ``least``: labels that do not collide."""
    groups: list[list[int]] = []

    def places(group: list[int]) -> list[float]:
        middle = sum(values[i] for i in group) / len(group)
        return [middle + (n - (len(group) - 1) / 2) * least for n in range(len(group))]

    for i in sorted(range(len(values)), key=lambda i: values[i]):
        groups.append([i])
        while len(groups) > 1 and places(groups[-1])[0] - places(groups[-2])[-1] < least:
            groups[-2:] = [groups[-2] + groups[-1]]
    found = {i: place for group in groups for i, place in zip(group, places(group), strict=True)}
    return [found[i] for i in range(len(values))]


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis from ``low`` to ``high``: three or more where there are so many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for digits in (
        (1,),
        (1, 3),
        (1, 2, 5),
        range(1, 10),
        [n / 2 for n in range(2, 20)],
        [n / 10 for n in range(10, 100)],
    ):
        ticks = (digit * 10.0**power for power in range(first, last + 1) for digit in digits)
        found = [tick for tick in ticks if low <= tick <= high]
        if len(found) > 2:
            break
    return found


def log_axis(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis for ``values``, a little longer than they reach, with round numbers."""
    low, high = min(values) / 1.15, max(values) * 1.15
    ticks = round_ticks(low, high)
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def legend(ax: Axes, columns: int) -> None:
    """Below the plot, which keeps its height: the figure grows. ``columns`` at most, as many as fit."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    widest = 0.45 + 0.065 * max(map(len, labels))  # inches
    columns = max(1, min(columns, len(handles), int(width / widest)))
    figure.set_size_inches(width, height + 0.2 * -(-len(handles) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def svg(ax: Axes, name: str) -> str:
    """The figure of ``ax`` as an ``<svg>`` element, the same text each time; its ids begin with ``name``."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    written = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # inside HTML the parser knows
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing points at a group
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r'\b(?:d|x|y|transform|points)="[^"]*"', lambda found: DECIMALS.sub(r"\1", found[0]), text)
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace(INK, "currentColor").strip()


def drawing(ax: Axes, name: str, caption: str, *, x: str = "", y: str = "", columns: int = 2) -> Drawing:
    """The figure of ``ax`` with its caption, labels of both axes and a legend of so many columns."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    legend(ax, columns)
    return Drawing(svg(ax, name), caption)


def write_png(figure: Figure, path: Path) -> None:
    """A figure as a file."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def png(image: Image) -> str:
    """An image as a data URI."""
    written = io.BytesIO()
    image.save(written, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
