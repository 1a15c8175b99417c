"""The pictures of README and docs: `python docs/draw.py [FOLDER]` writes them anew, the same bytes each time.

Schemes, one computed example on made-up numbers, and `gain`, which shows measured numbers (`measured.py`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle

sys.path.insert(0, str(Path(__file__).parent))
from measured import NAMES, Headline

HERE = Path(__file__).parent / "pictures"
GREY, ORANGE = "#6b7280", "#c2570c"
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
    word(axes, 4.9, 2.45, "whole squares: a block of width D     corners: the block of width d inside it", 8.5)
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


def gain() -> Figure:
    """Accuracy against parameters after the same fine-tuning: random weights, the best baseline of a size, sweet."""
    found = Headline.read()
    figure = Figure(figsize=(9, 5.2))
    axes = figure.add_axes((0.075, 0.135, 0.9, 0.645))
    labels = []
    for x, size in enumerate(found.sizes):
        rows = (("random", GREY, "X", -0.13), (found.best(size), ORANGE, "D", 0), ("sweet", BLUE, "o", 0.13))
        for arm, colour, marker, shift in rows:
            mean = found.table.mean(arm, size, "top1")
            assert mean is not None
            spread = 0 if math.isnan(mean.spread) else mean.spread
            axes.errorbar(x + shift, mean.value, spread, color=colour, marker=marker, markersize=9, capsize=3, lw=1.3)
            text, bold = f"{mean.value:.1f}", {"weight": "bold"} if arm == "sweet" else {}
            side = {"ha": "right" if shift < 0 else "left", "xytext": (-8 if shift < 0 else 8, 0)}
            if shift == 0 and mean.value - found.top1("random", size) < 8:  # no room below
                text, side = f"{text}\n{NAMES.get(arm, arm)}", {"ha": "right", "xytext": (-9, 0)}
            elif shift == 0:
                text, side = f"{text}\n{NAMES.get(arm, arm)}", {"ha": "center", "xytext": (-4, -12), "va": "top"}
            axes.annotate(text, (x + shift, mean.value), textcoords="offset points", color=colour, fontsize=10.5,
                          **({"va": "center"} | side | bold))  # fmt: skip
        ours = found.table.mean("sweet", size, "top1")
        assert ours is not None
        top = ours.value + (0 if math.isnan(ours.spread) else ours.spread)
        axes.annotate(f"{found.gains[size]:+.1f}", (x + 0.13, top), (0, 11), textcoords="offset points", ha="center",
                      color=GREEN, fontsize=13, weight="bold")  # fmt: skip
        shape, params = found.table.column(size), found.params[size]
        depth, heads = shape.size[1:].split("H")
        labels.append(f"{params / 1e6:.2f} M\n{depth} layers, {heads} heads")
    axes.set_xticks(range(len(labels)), labels, fontsize=10.5)
    axes.set_xlim(-0.55, len(labels) - 0.5)
    shown = [found.top1(arm, size) for size in found.sizes for arm in ("random", found.best(size), "sweet")]
    axes.set_ylim(min(shown) - 3, max(shown) + 5.5)  # room for the words below and above
    axes.set_ylabel("top-1 accuracy, %", fontsize=11)
    axes.tick_params(axis="y", labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.set_xlabel("parameters of the model that is fine-tuned", fontsize=11)
    figure.text(0.02, 0.945, f"One template, any size: {found.gain:+.1f} points over the best baseline", fontsize=17,
                weight="bold", color=INK)  # fmt: skip
    cell = found.table.cells["sweet", found.sizes[0]]
    figure.text(
        0.02,
        0.895,
        f"CIFAR-10, all fine-tuned alike: {cell.n_train:,} labels, {cell.recipe['epochs']:g} epochs. Mean and standard "
        f"deviation of {found.replicates} replicates.",
        fontsize=10.5,
        color=INK,
    )
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=9, linestyle="", label=text)
        for text, colour, marker in (
            ("SWEET", BLUE, "o"),
            ("best baseline at this size", ORANGE, "D"),
            ("random weights", GREY, "X"),
            ("gain over the best baseline", GREEN, "$+$"),
        )
    ]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.005, 0.885), ncols=4, frameon=False, fontsize=11,
                  handletextpad=0.1, columnspacing=1.6)  # fmt: skip
    return figure


def overview() -> Figure:
    """Images, one template, models of four sizes, four tasks."""
    figure, axes = scheme(9, 2.6)
    for number in range(4):
        box(axes, 0.25 + 0.13 * number, 0.95 + 0.13 * number, 0.75, 0.75, SAND)
    word(axes, 0.85, 0.55, "unlabelled images,\nor a ViT checkpoint", 9.5)
    box(axes, 2.95, 1.15, 1.0, 0.75, BLUE)
    word(axes, 3.45, 1.53, "template", 11, color="white")
    word(axes, 3.45, 0.55, "a core and thin scalers,\nlearned once", 9.5)
    for x, text in ((1.65, "masked\nautoencoding"), (4.15, "slice: under\na second"), (7.03, "fine-tune")):
        axes.annotate("", (x + 1.05, 1.5), (x, 1.5), arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.4})
        word(axes, x + 0.5, 1.85, text, 9.5)
    for x, depth, width in ((5.5, 10, 0.5), (6.1, 5, 0.5), (6.52, 10, 0.2), (6.82, 3, 0.12)):
        for block in range(depth):
            box(axes, x - width / 2 + 0.12, 0.85 + 0.14 * block, width, 0.1, PALE if width < 0.5 else "#9fbce0")
    word(axes, 6.2, 0.55, "plain timm ViTs of\nany depth and width", 9.5)
    for row, text in enumerate(("classify", "detect", "segment", "generate")):
        box(axes, 8.1, 1.95 - 0.34 * row, 0.8, 0.27, "#d5eadc")
        word(axes, 8.5, 2.085 - 0.34 * row, text, 9.5)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {f.__name__: f for f in (slices, template, rotation, order, gain, overview)}


def draw(folder: Path) -> None:
    """Write every picture as SVG on white, letters as outlines, without date."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "sweet", "svg.fonttype": "path"}):
        for name, make in PICTURES.items():
            metadata = {"Date": None, "Creator": None}
            metadata |= {"Title": Headline.read().sentence()} if name == "gain" else {}
            make().savefig(folder / f"{name}.svg", format="svg", metadata=metadata)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
