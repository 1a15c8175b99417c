"""The figures of a run: its curves, and what a source looks like inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweet.results.runs import RunFolder
from sweet.tasks.registry import METRICS

from .colours import colour
from .draw import INK, Drawing, axes, drawing

if TYPE_CHECKING:
    from sweet.storage.folders import StoredSource

LABELS = {
    "loss": "training loss",
    "lr": "learning rate",
    "img_per_s": "images per second",
    "data_wait": "share waiting for images",
}


def label_of(key: str) -> str:
    """How a number of the log is called."""
    name = key.removeprefix("val_")
    if name == key:
        return LABELS.get(key, key)
    return f"validation {METRICS[name].label if name in METRICS else name}"


def log_figures(run: RunFolder, name: str) -> list[Drawing]:
    """Every number of the logs against the step."""
    result = []
    for i, key in enumerate(run.logged()):
        ax, label = axes(height=2.5), label_of(key)
        points = run.series(key)
        ax.plot(*zip(*points, strict=True), color=colour("sweet"), marker="o" if len(points) == 1 else None)
        if key == "img_per_s":
            ax.set_ylim(bottom=0)
        result.append(drawing(ax, f"{name}l{i}", f"{label[:1].upper()}{label[1:]}.", x="step", y=label))
    return result


def spectrum_figure(spectrum: Sequence[float], name: str, *, sizes: dict[int, str] | None = None) -> Drawing:
    """Energy kept by the first n channels in principal order; ``sizes`` are targets' widths with their names."""
    ax = axes()
    kept = [0.0]
    for share in spectrum:
        kept.append(kept[-1] + 100 * share)
    ax.plot(range(len(kept)), kept, color=colour("sweet"), label="principal order")
    ax.plot([0, len(spectrum)], [0, 100], color=INK, linestyle=":", linewidth=0.9, label="if all were equal")
    for width, label in (sizes or {}).items():
        if width <= len(spectrum):
            ax.plot([width], [kept[width]], "o", color=colour("sweet"))
            ax.annotate(f"{label}: {kept[width]:.1f} %", (width, kept[width]), (5, -11), textcoords="offset points",
                        fontsize=8, annotation_clip=False)  # fmt: skip
    ax.set_ylim(0, 104)
    caption = "Energy of the residual stream that the first channels keep, over all norms."
    return drawing(ax, name, caption, x="channels kept", y="energy of the stream, %")


def source_figures(stored: StoredSource, name: str) -> list[Drawing]:
    """Kept energy by index, and the singular values of a Tucker core along its three modes."""
    import torch

    from sweet.template.tucker import Tucker

    result = []
    if stored.source.order is not None:
        config = stored.config
        widths = {
            config.head_dim * heads: f"H{heads}" for heads in {max(1, config.heads // 4), max(1, config.heads // 2)}
        }
        result.append(spectrum_figure(stored.source.order.spectrum.tolist(), f"{name}e", sizes=widths))
    core = stored.source.core
    if isinstance(core, Tucker):
        ax = axes()
        words = ("layers (X)", "residual side (U)", "inner side (V)")
        for mode, (word, arm) in enumerate(zip(words, ("sweet", "weight_selection", "principal_slice"), strict=True)):
            matrix = core.core.float().movedim(mode, 0).flatten(1)
            values = torch.linalg.eigvalsh(matrix @ matrix.t()).clamp_min(0).sqrt().flip(0)
            shares = (values / values[0]).tolist()
            ax.plot([(i + 1) / len(shares) for i in range(len(shares))], shares, color=colour(arm),
                    label=f"{word}, rank {len(shares)}")  # fmt: skip
        ax.set_ylim(0, 1.04)
        caption = "Spectra of the core along its three modes: flat means that every rank is used."
        x, y = "index, as a share of the rank", "singular value / largest"
        result.append(drawing(ax, f"{name}m", caption, x=x, y=y, columns=1))
    return result
