"""Protocols by arithmetic: budgets, seeds, what is left out, and that results that are there still belong to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweet.bench import dry_run
from sweet.bench.arms import ARMS, Arm
from sweet.bench.cells import finetune_recipe, hash_of
from sweet.bench.check import TOLERANCE, check
from sweet.bench.colours import MARKS, colour
from sweet.bench.estimates import budget_of, cell_flops, source_flops, start_flops
from sweet.bench.protocols import BEYOND, PROTOCOLS, Cell, Trial
from sweet.bench.results import read_sources
from sweet.bench.sources import source_folder, source_recipe
from sweet.bench.starts import switches_of
from sweet.files import read_json, write_json
from sweet.metrics import TASKS
from sweet.models.config import MaeConfig
from sweet.models.costs import mae_image_flops, pretraining_flops
from sweet.plan import expected_networks, pretraining_cost, template_cost_of, vit_config
from sweet.recipe import PretrainRecipe, load_recipe
from sweet.training.pretrain import networks_at

RESULTS = Path(__file__).parents[2] / "results"
TABLES = [key for key in PROTOCOLS if key[0] != "study"]  # a study asks what a budget does


def test_protocols_are_consistent() -> None:
    for (name, protocol), told in PROTOCOLS.items():
        assert {arm.source for arm in told.arms.values()} - {None} <= set(told.sources), name
        folders = {source_folder(told, source, "shapes:") for source in told.sources}
        assert len(folders) == len(told.sources), name
        for arm in told.arms.values():
            switches_of(arm, told.layers)  # raises for an unknown method or switch
        assert all((other, protocol) in PROTOCOLS for other in told.borrows)
        assert told.ours in told.arms
        learned = source_recipe(told, next(iter(told.sources)), "shapes:")
        for trial in told.trials:
            rows = replace(told, arms={"swept": Arm("random", lr=0.25), "random": Arm("random")})
            swept, recipe = (
                finetune_recipe(rows, Cell(arm, trial, told.sizes[0], 1), learned, "shapes:") for arm in rows.arms
            )
            assert swept.lr == 0.25 != recipe.lr
            assert recipe.seed == 1 and recipe.data.label_seed == 0


@pytest.mark.parametrize("key", TABLES, ids=" ".join)
def test_the_sources_of_a_table_take_equal_flops(key: tuple[str, str]) -> None:
    told = PROTOCOLS[key]
    taught = {source for source in told.sources if "taught" in source}  # the teacher's cost comes on top
    budgets = {source: budget_of(told, source) for source in told.sources if source not in taught}
    budgets |= {source: source_flops(told, source) for source in taught & {"kronecker.taught"}}
    assert max(budgets.values()) <= (1 + TOLERANCE) * min(budgets.values()), budgets


@pytest.fixture
def as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed was learned by the first version of the training code, whose sources had no version."""
    monkeypatch.setattr("sweet.bench.sources.TRAINING_VERSION", 1)


def test_sources_of_another_training_code_are_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for version in (1, 2, 3):
        monkeypatch.setattr("sweet.bench.sources.TRAINING_VERSION", version)
        told = PROTOCOLS["table1", "micro"]
        names |= {source_folder(told, source, "shapes:").name for source in ("dense", "converted", "kronecker.taught")}
    assert len(names) == 9


@pytest.mark.usefixtures("as_measured")
def test_estimated_flops_are_those_that_a_run_counts() -> None:
    """The committed sources of protocol micro, by formula and as their own runs counted."""
    told, counted = PROTOCOLS["table1", "micro"], read_sources(RESULTS, "micro")
    names = {source_folder(told, source, "parquet:x/cifar10").name: source for source in told.sources}
    assert counted.keys() & names.keys()
    for folder in counted.keys() & names.keys():
        expected, recipe = budget_of(told, names[folder]), source_recipe(told, names[folder], "shapes:")
        if recipe.width.mode != "none":  # a step's widths are drawn; the formula has the expectation
            recipe = recipe.model_copy(update={"width": recipe.width.model_copy(update={"apply": "slice"})})
            expected = pretraining_cost(recipe, told.images)
            own = drawn_flops(recipe, counted[folder]["steps"])
            assert expected == pytest.approx(own, rel=0.01)
            expected = own
        assert expected / 1e15 == pytest.approx(counted[folder]["pflops"], abs=1e-4)


def drawn_flops(recipe: PretrainRecipe, steps: int) -> float:
    config, mae = vit_config(recipe.model, recipe.data.img_size), MaeConfig(**recipe.mae.model_dump())
    networks = [network for step in range(steps) for network in networks_at(recipe, step, steps)]
    masked = recipe.width.apply == "mask"
    per_image = sum(mae_image_flops(config, mae, *network, masked=masked) for network in networks) / steps
    rebuild = template_cost_of(recipe, config).rebuild_macs
    return pretraining_flops(per_image, images=steps * recipe.batch_size, steps=steps, rebuild=rebuild)


def test_starts_that_learn_from_a_teacher_pay_for_it() -> None:
    told = PROTOCOLS["table1", "micro"]
    flops = {arm: start_flops(told, Cell(arm, told.trials[0], "L6H6", 0)) for arm in told.arms}
    assert {arm for arm, count in flops.items() if not count} == {
        "random", "weight_selection", "isomorphic", "sweet_prefix", "sweet_learned", "sweet", "sweet_tiles"
    }  # fmt: skip
    recipe = source_recipe(told, "dense", "shapes:")
    config, mae = vit_config(recipe.model, recipe.data.img_size), MaeConfig(**recipe.mae.model_dump())
    target = config.resized(6, 6)
    assert flops["wave"] == 3 * 51_200 * mae_image_flops(target, mae)
    assert flops["wave_supervised"] == 51_200 * (
        3 * target.cost(0).flops(attention=True) + config.cost(0).flops(attention=True)
    )
    encoder = replace(mae, decoder_depth=0)
    assert flops["sweet_fitted"] == 51_200 * (3 * mae_image_flops(target, encoder) + mae_image_flops(config, encoder))
    nine = mae_image_flops(config, encoder, depth=9)
    assert flops["dmae"] == pytest.approx(40_000 * (3 * mae_image_flops(target, mae) + nine))


def test_estimates_know_how_many_images_a_transfer_set_has() -> None:
    told = PROTOCOLS["table3", "micro"]
    learned = source_recipe(told, "dense", "shapes:")
    flops = {}
    for trial in told.trials:
        cell = Cell("random", trial, "L6H6", 0)
        flops[trial.data] = cell_flops(told, cell, finetune_recipe(told, cell, learned, "shapes:"))
    assert flops["flowers102"] / flops["tiny-imagenet-100"] == pytest.approx(25 * 1020 / (5 * 5000))


@pytest.mark.parametrize("mode", ["none", "independent", "shared", "sandwich"])
def test_expected_networks_are_those_that_are_drawn(mode: str) -> None:
    told = ["width.start=0.25", "depth.mode=even", "depth.start=0.5", f"width.mode={mode}"]
    recipe, steps = load_recipe(PretrainRecipe, "micro", told), 4000
    config, mae = vit_config(recipe.model, recipe.data.img_size), MaeConfig(**recipe.mae.model_dump())
    drawn = [mae_image_flops(config, mae, *one) for step in range(steps) for one in networks_at(recipe, step, steps)]
    expected = sum(share * mae_image_flops(config, mae, *one) for one, share in expected_networks(recipe).items())
    assert sum(drawn) / steps == pytest.approx(expected, rel=0.01)
    assert sum(expected_networks(recipe).values()) == pytest.approx(len(drawn) / steps)


def test_every_row_of_the_tables_has_a_colour_of_its_own() -> None:
    colours = [colour(name) for name in ARMS]
    assert ARMS.keys() <= MARKS.keys()
    assert len(set(colours)) == len(colours)


def test_seeds_are_outermost_and_fewer_where_it_takes_long() -> None:
    told = PROTOCOLS["table1", "micro"]
    cells = told.cells(list(told.arms), list(told.sizes), list(told.trials), None)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    seeds = {size: max(cell.seed for cell in cells if cell.size == size) + 1 for size in told.sizes}
    assert seeds == {"L6H6": 3, "L12H3": 3, "L12H6": 3, "L3H12": 2, "L6H12": 2, BEYOND: 1}
    beyond = {cell.arm for cell in cells if cell.size == BEYOND}
    assert {"sweet", "random", "sweet_fitted"} <= beyond
    assert not beyond & {"weight_selection", "isomorphic", "dmae", "wave"}
    assert {cell.arm for cell in cells if cell.size == "L6H6"} == set(told.arms)
    assert {cell.seed for cell in told.cells(["random"], ["L6H12"], [Trial()], 1)} == {0}


@pytest.mark.parametrize("key", PROTOCOLS, ids=" ".join)
def test_a_plan_needs_neither_images_nor_time(key: tuple[str, str]) -> None:
    name, protocol = key
    told = dry_run(name, protocol=protocol, seeds=1)
    assert told["cells"] > 0 and told["pflops"] > 0
    assert told["cells"] == len(told["starts"]) * len(told["columns"]) - len(told["left_out"]) * (
        len(told["columns"]) // len(PROTOCOLS[key].sizes)
    )


def cells_of(table: Path) -> list[Path]:
    return [path for task in TASKS for path in sorted(table.glob(f"{task}-*.json"))]


# the quickstart makes its table anew at every run; its source was named before names left out defaults
MEASURED = [
    (name, protocol)
    for (name, protocol), told in PROTOCOLS.items()
    if told.name != "quickstart" and cells_of(RESULTS / told.name / name)
]


@pytest.mark.usefixtures("as_measured")
@pytest.mark.parametrize("key", MEASURED, ids=" ".join)
def test_committed_results_belong_to_their_protocols(key: tuple[str, str]) -> None:
    """A new key of a recipe or a new field of a protocol makes no measured cell a stranger."""
    told, checked = PROTOCOLS[key], 0
    trials = {(trial.task, trial.data): trial for trial in told.trials}
    for path in cells_of(RESULTS / told.name / key[0]):
        cell = read_json(path)
        source, trial = told.source_of(cell["arm"]), trials[cell["task"], cell.get("set")]
        data = "parquet:x/cifar10"  # of pre-training
        own, images = source_recipe(told, source, data), f"x/{cell['recipe']['data']['source']}"
        recipe = finetune_recipe(told, Cell(cell["arm"], trial, cell["size"], 0), own, images)
        assert hash_of(recipe, told.layers) == cell["recipe_hash"], path
        assert cell["source"] in (None, source_folder(told, source, data).name), path
        checked += 1
    assert checked


def cell(arm: str, size: str, source: str | None, seeds: tuple[int, ...] = (0, 1)) -> dict:
    runs = [{"seed": seed, "top1": 10.0 + seed, "top5": 50.0, "steps": 9, "images_seen": 90} for seed in seeds]
    head = {"arm": arm, "size": size, "source": source, "n_train": 10, "test_set": 5, "test_images": 5, "classes": 10}
    return head | {"recipe": {"epochs": 1, "lr": 1}, "switches": {"layers": "even"}, "runs": runs}


def folder(tmp_path: Path, *cells: dict, **pflops: float) -> Path:
    for one in cells:
        write_json(tmp_path / "micro" / "table1" / f"classify-{one['arm']}-{one['size']}.json", one)
    for source, value in pflops.items():
        told = {"source": source, "training": {"pflops": value}}
        write_json(tmp_path / "micro" / "sources" / f"{source}.json", told)
    return tmp_path


def test_a_fair_table_is_let_through(tmp_path: Path) -> None:
    fair = [cell("sweet", "L1H1", "a"), cell("dmae", "L1H1", "b"), cell("random", "L1H1", None)]
    fair[1]["recipe"] = {"epochs": 1, "lr": 2}  # a sweep may find another rate
    assert check(folder(tmp_path, *fair, a=1.0, b=1.049)) == {"tables": 1, "violations": []}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "source b took 1.06 PFLOPs, 6.0 % more than a with 1"),
        ({"source": "c"}, "source c: the FLOPs of its pre-training are not told"),
        ({"n_train": 11}, "L1H1: n_train of sweet is 10, of dmae 11"),
        ({"test_images": 4}, "L1H1: dmae is tested on 4 of 5 images"),
        ({"recipe": {"epochs": 2, "lr": 1}}, "L1H1: sweet is fine-tuned by another recipe than dmae"),
        ({"switches": {"layers": "first"}}, "layers are chosen by first for dmae, even for sweet"),
        ({"runs": cell("dmae", "L1H1", "b", (0,))["runs"]}, "L1H1: dmae has seeds [0], others [0, 1]"),
    ],
)
def test_every_violation_is_a_line(tmp_path: Path, change: dict, line: str) -> None:
    found = check(folder(tmp_path, cell("sweet", "L1H1", "a"), cell("dmae", "L1H1", "b") | change, a=1.0, b=1.06))
    assert f"micro/table1: {line}" in found["violations"]


def test_a_source_learned_once_more_is_a_line(tmp_path: Path) -> None:
    cells = [cell(arm, "L1H1", "a") for arm in ("sweet", "dmae")]
    for one, weights in zip(cells, ("one", "two"), strict=True):
        one["runs"][0]["source_sha256"] = weights  # older runs tell none
    [line] = check(folder(tmp_path, *cells, a=1.0))["violations"]
    assert line == "micro/table1: source a was learned more than once: its checksums are one, two"


def test_means_are_computed_again(tmp_path: Path) -> None:
    out = folder(tmp_path, cell("sweet", "L1H1", "a"), a=1.0)
    written = out / "micro" / "table1" / "table.md"
    written.write_text("| start | L1H1 |\n| sweet | 10.50 ± 0.71 (2) |\n\n| sweet | 50.00 ± 0.00 (2) |\n")
    assert check(out)["violations"] == []
    written.write_text(written.read_text().replace("10.50", "11.50"))
    [line] = check(out)["violations"]
    assert line == "micro/table1: table.md: top-1, % of sweet at L1H1 is 10.50 ± 0.71 (2) by the results"
