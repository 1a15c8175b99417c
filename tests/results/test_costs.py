"""The efficiency claim: once and for each size, and from how many sizes on one way is cheaper."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from sweet.costs.flops import mae_image_flops
from sweet.files import read_json, write_json
from sweet.models.vit import encoder_shapes
from sweet.results.costs import Total, arm_costs, break_even, crossing, pretraining_of, targets, totals
from sweet.results.files import find_tables
from sweet.results.sentences import sentences


@pytest.mark.parametrize(
    ("one", "other"),
    [((1.0, 0.0), (0.0, 0.3)), ((0.28, 0.01), (0.25, 0.05)), ((1.0, 0.0), (0.0, 0.5)), ((0.1, 0.1), (0.2, 0.1))],
)
def test_crossing(one: tuple[float, float], other: tuple[float, float]) -> None:
    a, b = Total("a", "sweet", "ours", *one), Total("b", "dmae", "baseline", *other)
    cheaper = [n for n in range(1, 100) if a.of(n) < b.of(n)]
    assert crossing(a, b) == cheaper[0]
    assert crossing(b, a) is None or (crossing(b, a) == 1 and b.of(1) < a.of(1))


def test_what_a_template_and_own_pretraining_cost(results: Callable[..., Path]) -> None:
    cells = {(arm, size): [1.0] for arm in ("random", "sweet", "dmae") for size in ("L6H6", "L3H12")}
    [table] = find_tables(results(cells))
    found = {one.arm: one for one in totals(table)}
    assert set(found) == {"sweet", "own_mae", "dmae"}
    assert (found["sweet"].once, found["own_mae"].once, found["dmae"].once) == (0.28, 0.0, 0.25)
    config = table.config
    assert config is not None
    mae = table.sources["micro-tucker"].mae
    assert mae is not None
    own = [3 * 399360 * mae_image_flops(config.resized(depth, heads), mae) / 1e15 for depth, heads in ((6, 6), (3, 12))]
    assert found["own_mae"].each == pytest.approx(sum(own) / 2)
    assert found["sweet"].each < 1e-3 * found["dmae"].each < found["own_mae"].each
    assert [pretraining_of(table, arm) for arm in ("random", "sweet", "dmae")] == [0.0, 0.28, 0.25]


def test_the_main_arm_decides_what_a_template_costs(results: Callable[..., Path]) -> None:
    """A converted one as much as the source that it was made from."""
    folder = results({("sweet", "L3H2"): [1.0], ("sweet_learned", "L3H2"): [1.0]}) / "micro"
    converted = read_json(folder / "sources" / "tucker.json") | {"source": "micro-converted"}
    converted["training"] |= {"pflops": 0.25}
    write_json(folder / "sources" / "converted.json", converted)
    cell = read_json(folder / "table1" / "cell-0.json")
    write_json(folder / "table1" / "cell-0.json", cell | {"source": "micro-converted"})
    [table] = find_tables(folder.parent)
    assert [one.once for one in totals(table) if one.arm == "sweet"] == [0.25]


def test_from_how_many_sizes_on_one_source_is_cheaper_than_pretraining_each(results: Callable[..., Path]) -> None:
    """As measured: 0.28 PFLOPs once against 0.05 and 0.07 for two sizes: five sizes, 0.30, cost more."""
    sizes = ("L6H6", "L3H12")
    folder = results({(arm, size): [1.0, 2.0] for arm in ("sweet", "own_mae") for size in sizes}) / "micro"
    spec = read_json(folder / "table1" / "table.json")
    spec["arms"][1] |= {"source": "own.{size}"}
    write_json(folder / "table1" / "table.json", spec)
    [table] = find_tables(folder.parent)
    assert break_even(table) is not None  # by the source that stands there now
    for i, (size, pflops) in enumerate(zip(sizes, (0.05, 0.07), strict=True)):
        own = read_json(folder / "sources" / "none.json") | {"source": f"micro-own-{size}"}
        own["training"] |= {"pflops": pflops}
        write_json(folder / "sources" / f"own.{size}.json", own)
        path = folder / "table1" / f"cell-{2 + i}.json"
        write_json(path, read_json(path) | {"source": f"micro-own-{size}"})
    [table] = find_tables(folder.parent)
    found = break_even(table)
    assert found is not None and (found.source.once, found.own.each) == (0.28, pytest.approx(0.06))
    assert (found.sizes, found.needed) == (sizes, 5)
    assert "each of 2 sizes pre-trained itself 0.06 on average: one source is cheaper from 5 sizes on." in " ".join(
        sentences(table)
    )
    assert [one.each for one in totals(table) if one.arm == "own_mae"] == [pytest.approx(0.06)]
    own = read_json(folder / "sources" / "own.L6H6.json")
    write_json(folder / "sources" / "own.L6H6.json", own | {"training": own["training"] | {"seconds": 2000.0}})
    [table] = find_tables(folder.parent)
    assert {cost.arm: cost.seconds for cost in arm_costs(table)} == {"sweet": 4000.0, "own_mae": 3000.0}
    for seed, seconds in ((1, 1000.0), (2, 900.0)):  # two more replicates of the source of sweet
        one = read_json(folder / "sources" / "none.json")
        again = {"source": f"micro-none-{seed}", "training": one["training"] | {"seconds": seconds}}
        write_json(folder / "sources" / f"none.{seed}.json", one | again)
    path = folder / "table1" / "cell-0.json"
    first = read_json(path)
    runs = [first["runs"][0] | {"seed": seed, "source": f"micro-none-{seed}"} for seed in (1, 2)]
    write_json(path, first | {"runs": [first["runs"][0], *runs]})
    [table] = find_tables(folder.parent)
    assert {cost.arm: cost.seconds for cost in arm_costs(table)} == {"sweet": 1000.0, "own_mae": 3000.0}


def test_a_start_costs_what_its_steps_take(results: Callable[..., Path]) -> None:
    """And not as many images as there are."""
    cells = {(arm, "L6H6"): [1.0] for arm in ("sweet", "sweet_fitted", "dmae")}
    each = []
    for steps in (100, 200):
        switches = {"steps": steps, "batch": 128}
        [table] = find_tables(results(cells, switches=switches, extra={"init_images": 50_000}))
        found = {one.arm: one.each for one in totals(table)}
        each.append((found["sweet_fitted"], found["dmae"]))
    assert each[1][1] == pytest.approx(2 * each[0][1]) and each[1][0] == pytest.approx(2 * each[0][0], rel=1e-3)


def test_targets_are_exact(results: Callable[..., Path]) -> None:
    [table] = find_tables(results({("sweet", "L3H2"): [1.0]}))
    assert table.config is not None
    shapes = encoder_shapes(table.config.resized(3, 2))
    assert targets(table)["L3H2"].params == sum(prod(shape) for shape in shapes.values())


def test_without_sources_there_are_no_costs(results: Callable[..., Path]) -> None:
    [table] = find_tables(results({("sweet", "L3H2"): [1.0]}, sources=False))
    assert (totals(table), targets(table), pretraining_of(table, "sweet")) == ([], {}, None)
