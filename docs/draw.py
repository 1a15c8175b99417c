"""The pictures of docs/method.md: `python docs/draw.py [FOLDER]` writes them anew, the same bytes each time.

Schemes, and one computed example on made-up numbers. Nothing here was measured on images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

HERE = Path(__file__).parent / "pictures"
INK, BLUE, PALE, SAND, GREEN = "#30343b", "#1f5fa8", "#c9daf0", "#efe3cc", "#3f8f5f"
Axes = Any


def box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, **how: Any) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor=INK, linewidth=0.8, **how))


def word(axes: Axes, x: float, y: float, text: str, size: float = 9, **how: Any) -> None:
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": size, "color": INK} | how)


def scheme(width: float, height: float) -> tuple[Figure, Axes]:
    """A canvas whose units are inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def slices() -> Figure:
    """A block as twelve squares; the first d rows and columns of each are a narrower block."""
    figure, axes = scheme(7.4, 2.6)
    names = ["q", "k", "v", "o", *(f"MLP {i}" for i in range(1, 9))]
    for number, name in enumerate(names):
        column, row = number % 6, number // 6
        x, y, side = 0.75 + 1.1 * column, 1.4 - 1.15 * row, 0.8
        box(axes, x, y, side, side, PALE)
        box(axes, x, y + side / 2, side / 2, side / 2, BLUE)
        word(axes, x + side / 2, y - 0.13, name)
    word(axes, 1.15, 2.33, "inner side, V")
    word(axes, 0.55, 1.8, "residual side, U", rotation=90)
    word(axes, 5.0, 2.45, "all: a block of width D     dark: the block of width d inside it", 8.5)
    return figure


def template() -> Figure:
    """Slices on the left, the core and its scalers on the right (Eq. 5)."""
    figure, axes = scheme(7.4, 2.7)
    for number in range(5):
        shift = 0.16 * (4 - number)
        box(axes, 0.4 + shift, 0.55 + shift, 1.2, 1.2, PALE)
    word(axes, 1.0, 1.15, "D x D")
    word(axes, 1.2, 0.25, "12 L slices")
    word(axes, 2.75, 1.3, "=", 18)
    x, y, side, deep = 4.35, 0.75, 0.95, 0.4
    box(axes, x, y, side, side, BLUE)
    corners = [(x, y + side), (x + deep, y + side + deep), (x + side + deep, y + side + deep), (x + side, y + side)]
    axes.add_patch(Polygon(corners, facecolor="#6f9bd1", edgecolor=INK, linewidth=0.8))
    corners = [(x + side, y), (x + side + deep, y + deep), (x + side + deep, y + side + deep), (x + side, y + side)]
    axes.add_patch(Polygon(corners, facecolor="#164a86", edgecolor=INK, linewidth=0.8))
    word(axes, x + side / 2, y + side / 2, "core G", color="white")
    word(axes, x + side / 2, y - 0.2, "r1 x r2 x r3", 8)
    box(axes, 3.3, 0.6, 0.7, 1.3, SAND)
    word(axes, 3.65, 1.25, "U\nD x r2")
    box(axes, 6.0, 0.75, 1.15, 0.7, SAND)
    word(axes, 6.57, 1.1, "V: D x r3")
    box(axes, 5.0, 2.2, 1.9, 0.35, SAND)
    word(axes, 5.95, 2.37, "X: 12 L x r1", 8.5)
    return figure


def order() -> Figure:
    """How much of a stream its first channels keep, in the order that training left and in principal order.

    Made-up numbers: 64 channels that are random mixtures of 64 hidden causes, the n-th of energy 0.9 to the n.
    """
    random = np.random.default_rng(0)
    energy = 0.9 ** np.arange(64)
    mixing = np.linalg.qr(random.standard_normal((64, 64))).Q
    covariance = mixing @ np.diag(energy) @ mixing.T
    trained = np.cumsum(np.diag(covariance)) / energy.sum()
    principal = np.cumsum(np.linalg.eigvalsh(covariance)[::-1]) / energy.sum()

    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    channels = np.arange(1, 65)
    axes.plot(channels, 100 * principal, color=BLUE, label="principal order: rotated first")
    axes.plot(channels, 100 * trained, color="#8a8a8a", label="prefix order: as trained")
    axes.set_xlabel("channels that a narrower model takes, of 64")
    axes.set_ylabel("energy of the stream kept, %")
    axes.set_title("made-up numbers: 64 channels that mix 64 hidden causes", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def rotation() -> Figure:
    """Rotating the stream changes nothing; what is kept of it does change."""
    figure, axes = scheme(7.4, 2.0)
    steps = [
        ("writer W", "Qᵀ W", 0.9),
        ("stream x", "Qᵀ x", 2.8),
        ("norm", "norm", 4.6),
        ("reader R", "R Q", 6.4),
    ]
    for before, after, x in steps:
        box(axes, x - 0.6, 1.2, 1.2, 0.5, PALE)
        word(axes, x, 1.45, before)
        box(axes, x - 0.6, 0.45, 1.2, 0.5, SAND)
        word(axes, x, 0.7, after)
        if x < 6:
            for y in (1.45, 0.7):
                axes.annotate("", (x + 1.15, y), (x + 0.65, y), arrowprops={"arrowstyle": "->", "color": INK})
    word(
        axes,
        3.7,
        0.18,
        "the same function for every rotation Q: then choose Q so that the first channels matter most",
        8.5,
    )
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {f.__name__: f for f in (slices, template, rotation, order)}


def draw(folder: Path) -> None:
    """Write every picture as SVG, letters as outlines, without date."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "sweet", "svg.fonttype": "path"}):
        for name, make in PICTURES.items():
            make().savefig(folder / f"{name}.svg", format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
