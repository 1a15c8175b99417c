"""What the arms of a table cost: pre-training once, and something for each target size. Imports no torch.

Counted in training FLOPs (forward times three, all matrix products) by :mod:`sweet.costs.flops`; those of a source are
as its ``config.json`` records them. This is the paper's efficiency claim: one template and n cheap initialisations
against n pre-trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from sweet.costs.budget import SizeCost, size_cost
from sweet.costs.flops import (
    STUDENTS,
    distilling_flops,
    fitting_flops,
    mae_image_flops,
    pretraining_flops,
    rebuild_macs,
)
from sweet.template.sizes import Size

from .paired import Mean
from .records import Role, SourceResult
from .table import Table

TOLERANCE = 0.05  # pre-training FLOPs that differ by less count as equal


@dataclass(frozen=True)
class ArmCost:
    """What an arm took: the pre-training of its source, one initialisation, one fine-tuning; None where not recorded.

    ``seconds`` of the source are a median over replicates, in the mean over sizes where each has its own. The last
    three are medians over seeds, averaged over the columns that all arms can make. ``pflops`` include what the source
    was made from and are 0 for an arm without one.
    """

    arm: str
    source: str | None
    images: int | None
    seconds: float | None
    pflops: float | None
    init_seconds: float | None
    init_images: float | None
    finetune_seconds: float | None


def arm_costs(table: Table) -> list[ArmCost]:
    """The costs of every arm of a table."""
    result = []
    for arm in table.arms:
        source = table.source(arm)
        result.append(
            ArmCost(
                arm=arm,
                source=next((name for cell in table.cells_of(arm) for name in cell.sources), None),
                images=source.training.images if source else None,
                seconds=_learning_seconds(table, arm),
                pflops=pretraining_of(table, arm),
                init_seconds=_typical(table, arm, "init_seconds"),
                init_images=_typical(table, arm, "init_images"),
                finetune_seconds=_typical(table, arm, "seconds"),
            )
        )
    return result


def pretraining_of(table: Table, arm: str) -> float | None:
    """PFLOPs that went into the source of an arm, its parents' included; 0 without one, None if not recorded.

    Of an arm with a source for each size the mean over sizes.
    """
    if arm in table.of_each_size and (each := own_pretraining(table)):
        return sum(each.values()) / len(each)
    if not any(cell.sources for cell in table.cells_of(arm)):
        return 0.0
    source = table.source(arm)
    return source.training.pflops if source else None


def budget_note(table: Table) -> str:
    """Whether the sources had equal pre-training FLOPs, and which had more; empty with fewer than two.

    Sources of one size are smaller: they do not count.
    """
    arms = [arm for arm in table.arms if arm not in table.of_each_size]
    spent = {arm: value for arm in arms if (value := pretraining_of(table, arm))}
    if len(spent) < 2:
        return ""
    least = min(spent.values())
    more = {arm: value / least for arm, value in spent.items() if value > (1 + TOLERANCE) * least}
    apart = max(value for arm, value in spent.items() if arm not in more) / least - 1
    note = f"The pre-training FLOPs of the sources differ by up to {100 * apart:.1f} %, which counts as equal"
    if more:
        note += f", except for {', '.join(more)}: up to {max(more.values()):.2f} times as many"
    if silent := [arm for arm in table.arms if pretraining_of(table, arm) is None]:
        note += f"; those of {', '.join(silent)} are not recorded"
    return note + "."


def targets(table: Table) -> dict[str, SizeCost]:
    """{column: cost of its target}; empty without a source."""
    config = table.config
    if config is None:
        return {}
    result = {}
    for name in table.columns:
        column = table.column(name)  # scenes are larger than the images of pre-training
        pixels, patch = column.img_size or config.img_size, column.patch_size or config.patch_size
        size = Size.parse(column.size, config.head_dim)
        result[name] = size_cost(replace(config, img_size=pixels, patch_size=patch), size)
    return result


@dataclass(frozen=True)
class Total:
    """A way to get models of many sizes: ``once`` and ``each`` in PFLOPs, once and for each target size."""

    name: str
    arm: str  # whose colour it takes
    role: Role
    once: float
    each: float

    def of(self, sizes: int) -> float:
        """PFLOPs for a number of target sizes."""
        return self.once + sizes * self.each


def totals(table: Table) -> list[Total]:
    """The ways to get models of many sizes whose cost the sources of a table record; ``each`` is a mean over sizes."""
    template, dense = _source(table, "tucker"), _source(table, "none")
    config, known = table.config, template or dense
    if config is None or known is None or known.mae is None:
        return []
    mae, images = known.mae, known.training.images
    sizes = dict.fromkeys(table.column(name).size for name in table.columns)
    shapes = [config.resized(size.depth, size.heads) for size in map(Size.parse, sizes)]
    result = []
    if template is not None:
        once, ranks = template.training.pflops or 0.0, template.ranks
        assert ranks is not None
        made = _mean([2 * rebuild_macs(shape.depth, shape.width, ranks) for shape in shapes])
        result.append(Total("one template, sliced for each size", "sweet", "ours", once, made))
        if seen := _seen(table, "sweet_fitted") or _fit_images(table):
            fit = _mean([fitting_flops(config, shape, mae, images=seen, ranks=ranks) for shape in shapes])
            result.append(Total("one template, fitted for each size", "sweet_fitted", "ours", once, fit))
    measured = own_pretraining(table)
    own = (
        sum(measured.values()) / len(measured)
        if measured
        else _mean(
            [pretraining_flops(mae_image_flops(shape, mae), images=images, steps=0, rebuild=0) for shape in shapes]
        )
    )
    result.append(Total("own pre-training of each size, as many images", "own_mae", "reference", 0.0, own))
    if dense is not None:
        shown = _seen(table, "dmae") or dense.training.images // STUDENTS
        each = _mean([distilling_flops(config, shape, mae, images=shown) for shape in shapes])
        name = "one dense source, distilled for each size (DMAE)"
        result.append(Total(name, "dmae", "baseline", dense.training.pflops or 0.0, each))
    return result


def crossing(one: Total, other: Total) -> int | None:
    """From how many target sizes on ``one`` costs less than ``other``; None for never."""
    if one.each >= other.each:
        return 1 if one.of(1) < other.of(1) else None
    return max(1, int((one.once - other.once) / (other.each - one.each)) + 1)


@dataclass(frozen=True)
class BreakEven:
    """The source of the main arm against a pre-training of each of ``sizes``, as both were measured.

    ``needed``: from how many sizes on the source costs less; None for never.
    """

    source: Total
    own: Total
    sizes: tuple[str, ...]
    needed: int | None


def break_even(table: Table) -> BreakEven | None:
    """None until a size was pre-trained itself, and where the cost of the main arm's source is not recorded."""
    spent = own_pretraining(table)
    once = pretraining_of(table, table.main) if table.main else None
    if not spent or not once or table.main is None:
        return None
    source = Total("one source for all sizes", table.main, "ours", once, 0.0)
    own = Total("each size pre-trained itself", "own_mae", "reference", 0.0, sum(spent.values()) / len(spent))
    return BreakEven(source, own, tuple(spent), crossing(source, own))


def own_pretraining(table: Table) -> dict[str, float]:
    """{size: PFLOPs} of the sizes that were pre-trained themselves."""
    spent = {}
    for cell in (cell for arm in table.spec.arms if arm.of_each_size for cell in table.cells_of(arm.name)):
        source = next((table.sources[name] for name in cell.sources if name in table.sources), None)
        if source is not None and source.training.pflops is not None:
            spent[cell.size] = source.training.pflops
    return spent


def _source(table: Table, constraint: str) -> SourceResult | None:
    """A source with this constraint whose cost is recorded, that of the main arm before others."""
    main = table.source(table.main) if table.main else None
    found = [one for one in (main, *table.sources.values()) if one and one.constraint == constraint]
    return next((one for one in found if one.training.images and one.training.pflops is not None), None)


def _seen(table: Table, method: str) -> int:
    """Images in all steps of one start by a method, by its switches; 0 where these do not say."""
    switches = next((cell.switches for cell in table.cells.values() if cell.method == method), {})
    steps, batch = switches.get("steps"), switches.get("batch")
    return int(steps) * int(batch) if isinstance(steps, int) and isinstance(batch, int) else 0


def _fit_images(table: Table) -> int | None:
    """Unlabelled images that one fit of a template looks at."""
    fits = (run for cell in table.cells.values() if cell.method == "sweet_fitted" for run in cell.runs)
    return next((run.init_images for run in fits if run.init_images), None)


def _learning_seconds(table: Table, arm: str) -> float | None:
    found: dict[str, dict[str, float]] = {}  # by size, where each has a source of its own
    for cell in table.cells_of(arm):
        known = {name: table.sources[name].training.seconds for name in cell.sources if name in table.sources}
        found.setdefault(cell.size if arm in table.of_each_size else "", {}).update(known)
    middle = [median(one.values()) for one in found.values() if one]
    return Mean.of(middle).value if middle else None


def _typical(table: Table, arm: str, key: str) -> float | None:
    found = [table.values(arm, column, key) for column in table.common]
    middle = [median(values.values()) for values in found if values]
    return Mean.of(middle).value if middle else None


def _mean(flops: Sequence[float]) -> float:
    """In PFLOPs."""
    return sum(flops) / len(flops) / 1e15
