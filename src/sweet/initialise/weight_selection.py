"""Weight selection (Xu et al., "Initializing Models with Larger Ones", ICLR 2024, arXiv 2311.18823).

Every tensor of the target is a part of the source's tensor of the same name. Switches:

``rule``, along each axis of a entries of which b are kept:

* ``uniform`` (default, as released): every (a/b)-th entry where b divides a, else round(linspace(0, a - 1, b)). q, k
  and v, and gate and up of a SwiGLU, are selected apart, so that the borders between them do not shift where b does
  not divide a. A head of the target is mixed from several heads. In the ``eva`` family that also breaks the pairs of
  channels which rotary positions rotate together (i and i + head_dim / 2); the paper knows absolute positions only.
* ``consecutive``: the first b entries. Heads stay whole, and so do the pairs.
* ``random_consistent``: b entries drawn by the seed, the same in all tensors that share the axis. Mixes heads and
  pairs.
* ``whole_heads``: ``uniform`` for the stream and the hidden units, but evenly spaced *whole* heads. Ours, since
  without it the released rule is at a disadvantage with rotary positions.

``layers``: ``first`` (default, as released: block i comes from block i) or ``even``. ``gains``: ``none`` (default, as
released), ``sqrt``, norm gains times sqrt(D / d), since sums over d channels instead of D are smaller by as much, or
``equal``, equal gains as ``sweet`` has them (for a source whose order was computed).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sweet.data import ImageSource
from sweet.errors import UserError
from sweet.storage.folders import StoredSource
from sweet.template.gains import equalise_gains, last_norm, stored_energy
from sweet.template.sizes import Size
from sweet.template.source import at_depth, target_layers

from .selection import Selection, channels, cut


def initialise(
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    rule: Literal["uniform", "consecutive", "random_consistent", "whole_heads"] = "uniform",
    layers: Literal["even", "first"] = "first",
    gains: Literal["none", "sqrt", "equal"] = "none",
) -> dict[str, Tensor]:
    """Weights cut from a dense source that is at least as deep and wide. Raises UserError where the energies that
    ``gains="equal"`` needs were not computed."""
    config = source.config
    generator = torch.Generator().manual_seed(seed)

    def pick(old: int, new: int) -> Tensor:
        if rule == "consecutive":
            return torch.arange(new)
        if rule == "random_consistent":
            return torch.randperm(old, generator=generator)[:new].sort().values
        return uniform(old, new)

    residual = pick(config.width, size.width)
    if rule == "whole_heads":
        inner = channels(uniform(config.heads, size.heads), config.head_dim)
    else:
        inner = pick(config.width, size.width)
    hidden = pick(config.hidden, config.resized(size.depth, size.heads).hidden)
    chosen = target_layers(config.depth, size.depth, layers)
    each = (len(chosen), -1)
    weights = cut(source.source, Selection(chosen, residual, inner.expand(each), hidden.expand(each)))
    if gains == "none":
        return weights
    if gains == "equal":
        known = at_depth(source.source, size.depth, layers)
        if known.order is None:
            raise UserError("gains=equal: the channels' energies of this source were not computed")
        last = last_norm(known.stem)
        final = torch.ones(config.width) if last is None else known.stem[f"{last}.weight"]
        of_blocks = torch.stack([known.blocks["norm1.weight"], known.blocks["norm2.weight"]], 1)
        gain = torch.cat([of_blocks.flatten(0, 1), final[None]])
        return equalise_gains(weights, (stored_energy(known.order) * gain.square())[:, residual])
    scale = (config.width / size.width) ** 0.5
    in_blocks = [n for n in weights if n.startswith("blocks.") and n.endswith(("norm1.weight", "norm2.weight"))]
    last = last_norm(weights)
    of_features = [] if last is None else [f"{last}.weight"]
    return weights | {name: weights[name] * scale for name in (*in_blocks, *of_features)}


def uniform(old: int, new: int) -> Tensor:
    """The released rule for one axis: ``new`` of ``old`` indices."""
    if old % new == 0:
        return torch.arange(new) * (old // new)
    return torch.linspace(0, old - 1, new).round().long()
