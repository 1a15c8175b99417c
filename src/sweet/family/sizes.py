"""The members of a family: the sizes that ``--sizes`` names. Imports no torch."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

from sweet.console import warn
from sweet.costs.budget import Budget, choose, grid, read_sizes, size_cost, size_of
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.template.sizes import Size


def members(requested: Sequence[str], config: ViTConfig) -> dict[Size, str]:
    """{size: the word that requested it}, in their order; ``12M`` are parameters, ``L6H6`` is itself.

    ``config`` is the source's shape with the image size of the members. Raises UserError naming the word that is
    neither, or that leads to a size for the second time.
    """
    found: dict[Size, str] = {}
    notes = []
    for text, named in read_sizes(requested):
        chosen = choose(config, named) if isinstance(named, Budget) else None
        size = chosen.size if chosen else size_of(named, config)
        if chosen and chosen.note:
            notes.append(f"{chosen.budget.option}: {chosen.note}")
        if size in found:
            raise UserError(f"--sizes {text}: gives {size}, and so does {found[size]}; {_next(size, config)}")
        found[size] = text
    for note in notes:
        warn(note)
    return found


def _next(size: Size, config: ViTConfig) -> str:
    """From how many parameters on there is a larger size than one, in words."""
    own = size_cost(config, size).params
    counts = sorted({size_cost(config, one).params for one in grid(config)})
    for count in counts[bisect(counts, own) :]:
        larger = choose(config, Budget("params", count, "")).size
        if size_cost(config, larger).params > own:
            return f"it has {own:,} parameters, and from {count:,} on you get {larger}"
    return f"it has {own:,} parameters, the most that there are"
