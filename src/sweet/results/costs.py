"""What the rows of a table cost in all: pre-training once, and something for each target size. Imports no torch.

Counted in training FLOPs (forward times three, all matrix products) by ``models/costs.py``; a source's own are as its
``config.json`` tells. This is the paper's efficiency claim: one template and n cheap starts against n pre-trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweet.costs.budget import size_cost
from sweet.costs.flops import (
    STUDENTS,
    distilling_flops,
    fitting_flops,
    mae_image_flops,
    pretraining_flops,
    rebuild_macs,
)
from sweet.models.config import MaeConfig
from sweet.template.sizes import Size

from .read import BenchTable


@dataclass(frozen=True)
class Total:
    """``once`` and ``each`` in PFLOPs: once, and for each target size."""

    name: str
    arm: str  # whose colour it takes
    once: float
    each: float

    def of(self, sizes: int) -> float:
        return self.once + sizes * self.each


def targets(table: BenchTable) -> dict[str, dict[str, int]]:
    """{size: {"params", "flops"}} of the sizes of a table, exact, of the headless model; empty without a source."""
    config, trial = table.config, table.trial
    if config is None:
        return {}
    if trial is not None:  # scenes are larger than the images of pre-training
        config = replace(
            config, img_size=trial.img_size or config.img_size, patch_size=trial.patch_size or config.patch_size
        )
    return {size: size_cost(config, Size.parse(size, config.head_dim)) for size in table.sizes}


def pretraining_of(table: BenchTable, arm: str) -> float | None:
    """PFLOPs that went into the source of an arm, its parents' included; 0 for one without any, None if not told."""
    if all(cell.get("source") is None for (name, _), cell in table.cells.items() if name == arm):
        return 0.0
    told = (table.source(arm) or {}).get("training", {}).get("pflops")
    return None if told is None else float(told)


def totals(table: BenchTable) -> list[Total]:
    """The ways to come to models of many sizes that the sources of a table tell the cost of; ``each`` is a mean."""
    template = _source(table, "tucker")
    dense = _source(table, "none")
    config = table.config
    told = template or dense
    if config is None or told is None or not told.get("mae"):
        return []
    mae, images = MaeConfig(**told["mae"]), told["training"]["images"]
    shapes = [config.resized(size.depth, size.heads) for size in map(Size.parse, table.sizes)]
    result = []
    if template is not None:
        once, ranks = template["training"]["pflops"], template["ranks"]
        made = _mean([2 * rebuild_macs(shape.depth, shape.width, ranks) for shape in shapes])
        result.append(Total("one template, sliced for each size", "sweet", once, made))
        looked = _images(table, "sweet_fitted")
        if looked is not None:
            fit = _mean([fitting_flops(config, shape, mae, images=looked, ranks=ranks) for shape in shapes])
            result.append(Total("one template, fitted for each size", "sweet_fitted", once, fit))
    own = _mean([pretraining_flops(mae_image_flops(shape, mae), images=images, steps=0, rebuild=0) for shape in shapes])
    result.append(Total("own pre-training of each size, as many images", "random", 0.0, own))
    if dense is not None:
        seen = dense["training"]["images"]
        each = _mean([distilling_flops(config, shape, mae, images=seen // STUDENTS) for shape in shapes])
        result.append(
            Total("one dense source, distilled for each size (DMAE)", "dmae", dense["training"]["pflops"], each)
        )
    return result


def crossing(one: Total, other: Total) -> int | None:
    """From how many target sizes on ``one`` costs less than ``other``; None for never."""
    if one.each >= other.each:
        return 1 if one.of(1) < other.of(1) else None
    return max(1, int((one.once - other.once) / (other.each - one.each)) + 1)


def _source(table: BenchTable, constraint: str) -> dict | None:
    """A source with this constraint whose cost is told, that of our own row before others."""
    ours = table.source(table.ours) if table.ours else None
    return next(
        (
            facts
            for facts in ([ours] if ours else []) + [*table.sources.values()]
            if facts.get("constraint") == constraint and {"images", "pflops"} <= facts.get("training", {}).keys()
        ),
        None,
    )


def _images(table: BenchTable, arm: str) -> int | None:
    """Unlabelled images that one initialisation of an arm looked at."""
    runs = [run for (name, _), cell in table.cells.items() if name == arm for run in cell["runs"]]
    return next((run["init_images"] for run in runs if run.get("init_images")), None)


def _mean(flops: Sequence[float]) -> float:
    """In PFLOPs."""
    return sum(flops) / len(flops) / 1e15
