"""Which size fits a budget of parameters, FLOPs or milliseconds. Imports no torch; only a latency is measured.

The grid: depth 1 to 2 L and heads 1 to 2 H of the source. Parameters and FLOPs (all matrix products, attention's
included; no head) are exact, by the formulas of ``template/sizes.py``. Among the sizes that fit, those that use at
least nine tenths of what the largest uses count as equally large; of them the one wins whose ratio of depth to heads
is nearest the source's. A latency is measured for few sizes only: those whose ratio is within 1.25 of the source's, in
the order of their FLOPs, by bisection; the last one that fits wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from sweet.errors import UserError
from sweet.models.config import LIMITS, ViTConfig
from sweet.template.sizes import Size

if TYPE_CHECKING:
    from .latency import Timing

EQUALLY_LARGE = 0.9  # of the largest that fits
NEAR = 1.25  # factor between the ratios of depth to heads
SHOWN = 4
MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Budget:
    """At most ``limit`` parameters, FLOPs or seconds; ``option`` is what set it, as ``--params 12M``."""

    kind: str  # params, flops or latency
    limit: float
    option: str
    device: str = "auto"


@dataclass(frozen=True)
class Choice:
    """The chosen size, why, and rows of the candidates worth showing, the chosen one first.

    ``protocol`` says how latencies were measured.
    """

    size: Size
    why: str
    budget: Budget
    candidates: Sequence[Mapping[str, object]]
    protocol: Mapping[str, object] | None = None
    note: str | None = None  # that the budget cannot be used

    def to_dict(self) -> Mapping[str, object]:
        """For people and machines: a mapping that is JSON."""
        more = {name: value for name in ("protocol", "note") if (value := getattr(self, name)) is not None}
        chosen = {"requested": self.budget.option, "chosen": str(self.size), "why": self.why}
        return {**chosen, **more, "candidates": self.candidates}


def read_sizes(words: Sequence[str]) -> list[tuple[str, Size | Budget]]:
    """What each word of ``--sizes`` names: ``L6H6`` itself, ``12M`` as many parameters at most.

    Raises UserError for a word that is neither, and where there is none.
    """
    found: list[tuple[str, Size | Budget]] = []
    for text in words:
        try:
            size = Size.parse(text) if text.startswith("L") else None
            budget = None if size else read_budget(text, None, None)
        except (ValueError, UserError):
            size = budget = None
        if size is not None and (size.depth > LIMITS["depth"] or size.heads > LIMITS["heads"]):
            raise UserError(f"--sizes {text}: at most {LIMITS['depth']} blocks and {LIMITS['heads']} heads")
        if budget is not None:
            found.append((text, replace(budget, option=f"--sizes {text}")))
        elif size is not None:
            found.append((text, size))
        else:
            raise UserError(f"--sizes {text}: expected a number of parameters such as 12M, or a size such as L6H6")
    if not found:
        raise UserError("--sizes: names no size; expected some as 3M,6M,12M or L3H6,L6H6")
    return found


def size_of(named: Size | Budget, config: ViTConfig) -> Size:
    """What a word of :func:`read_sizes` names for a source of shape ``config``."""
    return choose(config, named).size if isinstance(named, Budget) else replace(named, head_dim=config.head_dim)


def read_budget(params: str | None, flops: str | None, latency: str | None) -> Budget | None:
    """The budget that one of the options sets, ``12M``, ``2G`` or ``4ms@cuda``; None where none is given.

    Raises UserError for more than one, and for a text that is no budget.
    """
    options = {"params": params, "flops": flops, "latency": latency}
    given = {kind: text for kind, text in options.items() if text is not None}
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"{' and '.join(f'--{kind}' for kind in given)} exclude each other")
    [(kind, text)] = given.items()
    option = f"--{kind} {text}"
    if kind == "latency":
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)(?:@(.+))?", text)
        if found is None:
            raise UserError(f"{option}: expected a time such as 4ms, or 4ms@cuda")
        limit, device = float(found[1]) * SECONDS[found[2]], found[3] or "auto"
    else:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgbt]?)", text.lower())
        if found is None:
            raise UserError(f"{option}: expected a number such as 12M or 2G")
        limit, device = float(found[1]) * MULTIPLES[found[2]], "auto"
    if limit <= 0:
        raise UserError(f"{option}: should be above 0")
    return Budget(kind, limit, option, device)


def chosen_budget(
    params: str | float | None, flops: str | float | None, latency: str | None, size: Mapping[str, int | None]
) -> Budget | None:
    """As :func:`read_budget`; ``size`` are depth and heads under the names of their options.

    Raises UserError for both, and for more blocks or heads than a model may have.
    """
    budget = read_budget(*(None if value is None else str(value) for value in (params, flops, latency)))
    for name, value in size.items():
        if value is not None and value > (most := LIMITS[name.lstrip("-")]):
            raise UserError(f"{name} {value}: at most {most}")
    given = [name for name, value in size.items() if value is not None]
    if budget is not None and given:
        raise UserError(f"{budget.option}: chooses the size itself, leave out {' and '.join(given)}")
    return budget


class SizeCost(NamedTuple):
    """Parameters and forward FLOPs of one image of a headless model, both exact."""

    params: int
    flops: int


def size_cost(config: ViTConfig, size: Size) -> SizeCost:
    """What a model of ``size`` costs that is like ``config`` in all else."""
    counted = config.resized(size.depth, size.heads).cost()
    return SizeCost(counted.parameters(positions=config.positions == "table"), counted.flops(attention=True))


def grid(config: ViTConfig) -> list[Size]:
    """All sizes that are considered for a source of shape ``config``."""
    return [
        Size(depth, heads, config.head_dim)
        for depth in range(1, 2 * config.depth + 1)
        for heads in range(1, 2 * config.heads + 1)
    ]


def choose(config: ViTConfig, budget: Budget, measure: Callable[[Size], Timing] | None = None) -> Choice:
    """The size within ``budget`` for models like ``config``, whose depth and heads are the source's.

    ``measure`` replaces the clock. Raises UserError when not even the smallest size fits.
    """
    return _by_latency(config, budget, measure) if budget.kind == "latency" else _by_count(config, budget)


def _by_count(config: ViTConfig, budget: Budget) -> Choice:
    used: dict[Size, int] = {size: getattr(size_cost(config, size), budget.kind) for size in grid(config)}
    fitting = [size for size in used if used[size] <= budget.limit]
    if not fitting:
        smallest = min(used, key=used.__getitem__)
        raise UserError(f"{budget.option}: the smallest size, {smallest}, takes {used[smallest]:,}")
    largest = max(fitting, key=used.__getitem__)
    equal = [size for size in fitting if used[size] >= EQUALLY_LARGE * used[largest]]
    equal.sort(key=lambda size: (round(_distance(config, size), 9), -used[size]))
    why = (
        f"of the {len(equal)} sizes that use {EQUALLY_LARGE:.0%} or more of what the largest fitting one ({largest}, "
        f"{used[largest]:,}) uses, its depth/heads is nearest the source's {config.depth / config.heads:.2f}; "
        f"grid: depth 1 to {2 * config.depth}, heads 1 to {2 * config.heads}"
    )
    rows = [_row(config, size) for size in equal[:SHOWN]]
    unused = len(fitting) == len(used) and used[largest] < EQUALLY_LARGE * budget.limit
    note = f"the largest size that is considered, {largest}, uses {used[largest]:,} of {budget.limit:,.0f}"
    return Choice(equal[0], why, budget, rows, note=note if unused else None)


def _by_latency(config: ViTConfig, budget: Budget, measure: Callable[[Size], Timing] | None) -> Choice:
    protocol = None
    if measure is None:
        measure, protocol = _clock(config, budget.device)
    limit = round(math.log(NEAR), 9)
    near = [size for size in grid(config) if round(_distance(config, size), 9) <= limit]
    near.sort(key=lambda size: size_cost(config, size).flops)
    timed: dict[Size, Timing] = {}

    def fits(size: Size) -> bool:
        timed[size] = measure(size)
        return timed[size].median <= budget.limit

    low, high, middle = -1, len(near), near.index(config.size)  # the source's own size first: it can surely be built
    while high - low > 1:
        low, high = (middle, high) if fits(near[middle]) else (low, middle)
        middle = (low + high) // 2
    if low < 0 and near[0] != Size(1, 1, config.head_dim):  # a flat or tall source has no small size of its own ratio
        near.insert(0, Size(1, 1, config.head_dim))
        low = 0 if fits(near[0]) else -1
    if low < 0:
        raise UserError(f"{budget.option}: the smallest size, {near[0]}, takes {1000 * timed[near[0]].median:.3g} ms")
    size = near[low]
    inside = sorted((s for s in timed if timed[s].median <= budget.limit), key=near.index, reverse=True)
    outside = sorted((s for s in timed if timed[s].median > budget.limit), key=near.index)
    why = (
        f"the largest that was measured within {1000 * budget.limit:g} ms; {len(timed)} sizes measured, by bisection "
        f"over the FLOPs of the {len(near)} whose depth/heads is within a factor {NEAR:g} of the source's"
    )
    shown = [size, *(s for s in inside if s != size)][: SHOWN - 1] + outside[:2]
    rows = [_row(config, s) | timed[s].to_dict() | {"fits": timed[s].median <= budget.limit} for s in shown]
    unused = size == near[-1] and timed[size].median < EQUALLY_LARGE * budget.limit
    note = f"the largest size that is considered, {size}, takes {1000 * timed[size].median:.3g} ms" if unused else None
    return Choice(size, why, budget, rows, protocol, note)


def _clock(config: ViTConfig, device: str) -> tuple[Callable[[Size], Timing], Mapping[str, object]]:
    from sweet.models.device import resolve_device

    from .latency import measure_latency, protocol

    chosen = resolve_device(device)
    return lambda size: measure_latency(config.resized(size.depth, size.heads), chosen), protocol(chosen)


def _row(config: ViTConfig, size: Size) -> dict[str, object]:
    return {"size": str(size), **size_cost(config, size)._asdict(), "depth_per_head": round(size.depth / size.heads, 2)}


def _distance(config: ViTConfig, size: Size) -> float:
    """How far the ratio of depth to heads is from the source's: the logarithm of a factor."""
    return abs(math.log((size.depth / size.heads) / (config.depth / config.heads)))
