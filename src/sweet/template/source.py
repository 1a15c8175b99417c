"""What a target is made from, and the same thing at another depth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from .constraints import Core, Kronecker, Linear, on_a_line
from .order import Order
from .sizes import hidden_features
from .slices import FC2, Units
from .tucker import Full, pick

LAYER_RULES = ("even", "first")
EMBEDDING_NORMS = {"norm_pre.weight", "patch_embed.norm.weight"}  # what is written to the stream passes through them


@dataclass
class Source:
    """Everything a target is made from.

    ``blocks`` are the ordinary parameters of the blocks, stacked {name: (L, ...)}: biases and norms. Beside a Linear
    core they are (2, ...), base and slope. ``stem`` are those outside the blocks under timm's names: patch embedding,
    class and register tokens, positions, final norm, and a norm of the embedding (:data:`EMBEDDING_NORMS`).
    ``decoder`` is the MAE decoder; its ``embed.weight`` (decoder width, D) reads the stream after the final norm.
    ``mlp`` is ``swiglu`` or ``gelu``, ``norm`` is ``rms`` or ``layer``.
    ``order`` is None until it is computed. ``copies`` (L entries), of a source that was made deeper: how many blocks
    were made of the one that block i comes from. What it adds to the stream is divided by that.
    """

    core: Core
    blocks: dict[str, Tensor]
    stem: dict[str, Tensor]
    mlp: str
    norm: str
    decoder: dict[str, Tensor] = field(default_factory=dict)
    order: Order | None = None
    copies: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        """Blocks L."""
        return self.core.depth

    @property
    def width(self) -> int:
        """Channels D of the residual stream."""
        return self.core.width

    @property
    def ratio(self) -> float:
        """Hidden units for each channel, where somebody else's network has another number than ours; else 0."""
        hidden = self.core.weights[FC2].shape[2] if isinstance(self.core, Full) else getattr(self.core, "hidden", 0)
        return 0.0 if hidden in (0, hidden_features(self.width, self.mlp)) else hidden / self.width

    def hidden(self, width: int) -> int:
        """Hidden units of a target of ``width`` channels."""
        return hidden_features(width, self.mlp, self.ratio)

    def units(self, width: int) -> Units | None:
        """Hidden units of the source and of a target of ``width`` channels; None for the default numbers."""
        return (self.hidden(self.width), self.hidden(width)) if self.ratio else None

    @property
    def unit_gains(self) -> bool:
        """Whether every norm is a plain RMSNorm, so that a rotation commutes with it and nothing is to be folded."""
        gains = [v for k, v in (self.blocks | self.stem).items() if "norm" in k]
        plain = self.norm == "rms" and not EMBEDDING_NORMS & self.stem.keys()
        return plain and all(bool((gain == 1).all()) for gain in gains)


def untiled(source: Source) -> Source:
    """A source of Kronecker tiles as the dense source of the same weights; any other as it is."""
    if not isinstance(source.core, Kronecker):
        return source
    return replace(source, core=Full(source.core.stacked(source.width, source.mlp)))


def target_layers(source_depth: int, depth: int, rule: str) -> list[int]:
    """Layers of the source that a target of ``depth`` blocks takes; a deeper target repeats each one or more times.

    ``even`` spaces them evenly, with the first and the last; ``first`` takes the first ones. Raises ValueError for
    another rule.

    >>> target_layers(12, 3, "even"), target_layers(12, 3, "first"), target_layers(2, 5, "even")
    ([0, 6, 11], [0, 1, 2], [0, 0, 0, 1, 1])
    """
    if rule not in LAYER_RULES:
        raise ValueError(f"unknown layer rule {rule!r}, expected one of {', '.join(LAYER_RULES)}")
    if depth > source_depth:
        return [i * source_depth // depth for i in range(depth)]
    if rule == "first" or depth == 1:
        return list(range(depth))
    return [int(i * (source_depth - 1) / (depth - 1) + 0.5) for i in range(depth)]


def at_depth(source: Source, depth: int, layers: str) -> Source:
    """The same source with ``depth`` blocks, by a rule of :func:`target_layers`; its width is left alone.

    A Linear source has a rule of its own for any depth, its own included: it becomes a dense one.
    """
    chosen = target_layers(source.depth, depth, layers)
    line = isinstance(source.core, Linear)
    if chosen == list(range(source.depth)) and not line:
        return source
    order = source.order
    if order is not None:
        norms = [2 * layer + part for layer in chosen for part in (0, 1)] + [2 * source.depth]
        heads, units = order.heads[chosen], order.units[chosen]
        order = replace(order, energy=order.energy[norms], heads=heads, units=units)
    return replace(
        source,
        core=source.core.at_layers(chosen),
        blocks={n: on_a_line(v, depth) if line else pick(v, chosen) for n, v in source.blocks.items()},
        order=order,
        copies=() if line else tuple(chosen.count(layer) for layer in chosen),
    )
