"""Protocols by arithmetic: budgets, seeds, what is left out, and that results that are there still belong to them."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from sweet.bench.arms import ARMS, SCALED, Arm
from sweet.bench.cells import description, finetune_recipe, run_folder
from sweet.bench.estimates import budget_of, cell_flops, source_flops, start_flops
from sweet.bench.protocol import Cell, Protocol, Trial, spec_of
from sweet.bench.protocols import CONDITIONED, OLD_TABLES, PROTOCOLS, SIZES, find
from sweet.bench.run import dry_run
from sweet.bench.sources import Sources, images_name
from sweet.bench.starts import switches_of
from sweet.bench.sweeps import with_choices
from sweet.costs.flops import mae_image_flops, pretraining_flops
from sweet.costs.plan import expected_networks, pretraining_cost, template_cost_of
from sweet.errors import UserError
from sweet.files import dotted
from sweet.models.config import MaeConfig
from sweet.recipes.loader import load_recipe
from sweet.recipes.resolved import resolve, vit_config
from sweet.recipes.schema import PretrainRecipe
from sweet.results.costs import TOLERANCE
from sweet.results.files import read_cell, read_source_folder
from sweet.results.records import RULES, Role, TableSpec
from sweet.results.render.colours import MARKS, colour
from sweet.tasks.registry import TASKS
from sweet.training.pretrain import networks_at

RESULTS = Path(__file__).parents[2] / "results"
STUDY = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "study.py"))["STUDY"]
WITH_STUDY: dict[tuple[str, str], Protocol] = PROTOCOLS | {("study", "nano"): STUDY}


def test_protocols_are_consistent(dense: Path) -> None:
    for (name, place), protocol in WITH_STUDY.items():
        cells = [(arm, size) for arm in protocol.arms for size in protocol.sizes if protocol.can(arm, size)]
        assert {protocol.source_of(*cell) for cell in cells} <= set(protocol.sources), name
        assert {arm for arm, _ in cells} == set(protocol.arms), name
        sources = Sources(protocol, "shapes:", checkpoint=str(dense))
        assert len({sources.folder(source) for source in protocol.sources}) == len(protocol.sources), name
        for arm in protocol.arms.values():
            switches_of(arm, protocol.layers)  # raises for an unknown method or switch
            alone = {"condition": "false", **SCALED}  # one trial of protocol real
            scale_alone = (name, place) == ("settings", "real") and alone.items() <= arm.switches.items()
            assert (arm.role == "conditioned") <= (arm.switches.get("condition") == "true" or scale_alone)
        assert all((other, place) in PROTOCOLS for other in (*protocol.borrows, *protocol.chosen_by))
        assert protocol.main in protocol.arms
        learned = sources.recipe(next(iter(protocol.sources)))
        for trial in protocol.trials:
            rows = replace(protocol, arms={"swept": Arm("random", lr=0.25), "random": Arm("random")})
            swept, recipe = (
                finetune_recipe(rows, Cell(arm, trial, protocol.sizes[0], 1), learned, "shapes:") for arm in rows.arms
            )
            assert swept.lr == 0.25 != recipe.lr
            assert recipe.seed == 1 and recipe.data.label_seed == 0


def test_a_table_describes_itself() -> None:
    spec = spec_of(PROTOCOLS["table1", "micro"], "table1")
    assert (spec.table, spec.protocol, spec.main, spec.ablation) == ("table1", "micro", "sweet", False)
    assert (spec.version, spec.one_source, spec.chosen_by) == (RULES, False, ("settings", "learning_rates"))
    assert {column.size: column.seeds for column in spec.columns} == dict.fromkeys(SIZES.first, 3) | SIZES.fewer_seeds
    assert [column.name for column in spec.columns] == ["L6H6", "L12H3", "L3H12", "L12H6", "L6H12", "L16H14"]
    assert set(spec.impossible) == {
        *((arm, SIZES.beyond) for arm in ("weight_selection", "isomorphic", "dmae", "wave", "wave_supervised")),
        *((arm, size) for arm in CONDITIONED for size in SIZES.fewer_seeds),  # at the first three sizes
    }
    roles = {role: {arm.name for arm in spec.arms if arm.role == role} for role in get_args(Role)}
    assert roles["reference"] == {"own_mae", "own_mae_conditioned"}
    assert roles["paper"] == {"sweet_paper", "sweet_paper_fitted"}
    assert roles["ours"] == {"sweet_tucker", "sweet", "sweet_fitted"}
    assert roles["conditioned"] == {
        "weight_selection_conditioned", "isomorphic_conditioned", "wave_conditioned", "sweet_paper_conditioned"
    }  # fmt: skip
    tasks = spec_of(PROTOCOLS["tasks", "micro"], "tasks")
    assert [(c.name, c.task, c.img_size, c.patch_size) for c in tasks.columns if c.size == "L6H6"] == [
        ("L6H6", "classify", None, None),
        ("bccd L6H6", "detect", 256, 8),
        ("penn-fudan L6H6", "detect", 256, 8),
        ("camvid L6H6", "segment", 160, 8),
        ("L6H6", "generate", None, None),
    ]
    assert TableSpec.model_validate(tasks.to_dict()) == tasks


def test_old_names_of_tables_are_accepted() -> None:
    for old, new in OLD_TABLES.items():
        assert find(old, "micro") == find(new, "micro") == (new, PROTOCOLS[new, "micro"])
    with pytest.raises(UserError, match=r"bench luck --protocol paper: unknown, there are: settings --protocol nano"):
        find("luck", "paper")


@pytest.mark.parametrize("key", PROTOCOLS, ids=" ".join)
def test_the_sources_of_a_table_take_equal_flops(key: tuple[str, str]) -> None:
    protocol = PROTOCOLS[key]
    taught = {source for source in protocol.sources if "taught" in source}  # the teacher's cost comes on top
    own = {source for source in protocol.sources if source.startswith("own.")}  # each size is charged with its own
    budgets = {source: budget_of(protocol, source) for source in protocol.sources if source not in taught | own}
    budgets |= {source: source_flops(protocol, source) for source in taught & {"kronecker.taught"}}
    assert max(budgets.values()) <= (1 + TOLERANCE) * min(budgets.values()), budgets


@pytest.fixture
def as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed was learned by the first version of the training code, whose sources had no version."""
    monkeypatch.setattr("sweet.bench.sources.TRAINING_VERSION", 1)


def test_sources_of_another_training_code_are_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for version in (1, 2, 3):
        monkeypatch.setattr("sweet.bench.sources.TRAINING_VERSION", version)
        sources = Sources(PROTOCOLS["table1", "micro"], "shapes:")
        names |= {sources.folder(source).name for source in ("dense", "converted", "kronecker.taught")}
    assert len(names) == 9


@pytest.mark.usefixtures("as_measured")
def test_estimated_flops_are_those_that_a_run_counts() -> None:
    """The committed sources of protocol micro, by formula and as their own runs counted."""
    protocol, counted = PROTOCOLS["table1", "micro"], read_source_folder(RESULTS / "history" / "micro" / "sources")
    names = {Sources(protocol, "parquet:x/cifar10").folder(source).name: source for source in protocol.sources}
    assert counted.keys() & names.keys()
    for folder in counted.keys() & names.keys():
        expected, recipe = budget_of(protocol, names[folder]), Sources(protocol, "shapes:").recipe(names[folder])
        if recipe.width.mode != "none":  # a step's widths are drawn; the formula has the expectation
            sliced = recipe.width.model_copy(update={"apply": "slice"})  # as it was then
            recipe = recipe.model_copy(update={"width": sliced})
            expected = pretraining_cost(resolve(recipe), protocol.images)
            own = drawn_flops(recipe, counted[folder].training.steps)
            assert expected == pytest.approx(own, rel=0.01)
            expected = own
        assert expected / 1e15 == pytest.approx(counted[folder].training.pflops, abs=1e-4)


def drawn_flops(recipe: PretrainRecipe, steps: int) -> float:
    config, mae = vit_config(recipe.model, recipe.data.img_size), MaeConfig(**recipe.mae.model_dump())
    networks = [network for step in range(steps) for network in networks_at(recipe, step, steps)]
    masked = recipe.width.apply == "mask"
    per_image = sum(mae_image_flops(config, mae, *network, masked=masked) for network in networks) / steps
    rebuild = template_cost_of(resolve(recipe)).rebuild_macs
    return pretraining_flops(per_image, images=steps * recipe.batch_size, steps=steps, rebuild=rebuild)


def test_starts_that_learn_from_a_teacher_pay_for_it() -> None:
    protocol = PROTOCOLS["table1", "micro"]
    flops = {arm: start_flops(protocol, Cell(arm, protocol.trials[0], "L6H6", 0)) for arm in protocol.arms}
    assert {arm for arm, count in flops.items() if not count} == {
        "random", "weight_selection", "weight_selection_conditioned", "isomorphic", "isomorphic_conditioned", "own_mae",
        "own_mae_conditioned", "sweet_paper", "sweet_paper_conditioned", "sweet_tucker", "sweet",
        "wave_conditioned",  # its training is that of wave
    }  # fmt: skip
    recipe = Sources(protocol, "shapes:").recipe("dense")
    config, mae = vit_config(recipe.model, recipe.data.img_size), MaeConfig(**recipe.mae.model_dump())
    target = config.resized(6, 6)
    assert flops["wave"] == 3 * 51_200 * mae_image_flops(target, mae)
    assert flops["wave_supervised"] == 51_200 * (
        3 * target.cost(0).flops(attention=True) + config.cost(0).flops(attention=True)
    )
    # 16 of 64 patches and the class token are visible: an encoder of a smaller image
    shapes = ((6, 6), (12, 12), (9, 12))
    own, whole, nine = (replace(config.resized(*shape), img_size=16).cost().flops(attention=True) for shape in shapes)
    reader = 2 * 17 * target.width * config.width
    assert flops["sweet_fitted"] == 51_200 * (3 * (own + reader) + whole)
    assert flops["dmae"] == pytest.approx(40_000 * (3 * mae_image_flops(target, mae) + nine))


def test_estimates_know_how_many_images_a_transfer_set_has() -> None:
    protocol = PROTOCOLS["table3", "micro"]
    learned = Sources(protocol, "shapes:").recipe("dense")
    flops = {}
    for trial in protocol.trials:
        cell = Cell("random", trial, "L6H6", 0)
        flops[trial.data] = cell_flops(protocol, cell, finetune_recipe(protocol, cell, learned, "shapes:"))
    assert flops["flowers102"] / flops["tiny-imagenet-100"] == pytest.approx(25 * 1020 / (5 * 5000))


@pytest.mark.parametrize("mode", ["none", "independent", "shared", "sandwich"])
def test_expected_networks_are_those_that_are_drawn(mode: str) -> None:
    overrides = ["width.start=0.25", "depth.mode=even", "depth.start=0.5", f"width.mode={mode}"]
    recipe, steps = load_recipe(PretrainRecipe, "micro", overrides), 4000
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
    protocol = PROTOCOLS["table1", "micro"]
    cells = protocol.cells(list(protocol.arms), list(protocol.sizes), list(protocol.trials), None)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    seeds = {size: max(cell.seed for cell in cells if cell.size == size) + 1 for size in protocol.sizes}
    assert seeds == {"L6H6": 3, "L12H3": 3, "L3H12": 3, "L12H6": 1, "L6H12": 1, SIZES.beyond: 1}
    beyond = {cell.arm for cell in cells if cell.size == SIZES.beyond}
    assert {"sweet", "random", "sweet_fitted"} <= beyond
    assert not beyond & {"weight_selection", "isomorphic", "dmae", "wave"}
    assert {cell.arm for cell in cells if cell.size == "L6H6"} == set(protocol.arms)
    assert {cell.seed for cell in protocol.cells(["random"], ["L6H12"], [Trial()], 1)} == {0}


@pytest.mark.parametrize("key", PROTOCOLS, ids=" ".join)
def test_a_plan_needs_neither_images_nor_time(key: tuple[str, str]) -> None:
    plan = dry_run(PROTOCOLS[key], key[0], seeds=1)
    assert plan["pflops"] > 0
    trials = len(plan["columns"]) // len(PROTOCOLS[key].sizes)
    assert plan["cells"] == len(plan["arms"]) * len(plan["columns"]) - len(plan["left_out"]) * trials > 0


def cells_of(table: Path) -> list[Path]:
    return [path for task in TASKS for path in sorted(table.glob(f"{task}-*.json"))]


# the quickstart makes its table anew at every run; its source was named before names left out defaults
FOLDERS = {(name, place): RESULTS / place / name for name, place in PROTOCOLS} | {
    ("study", "nano"): RESULTS / "history" / "nano" / "study"
}
MEASURED = [key for key, folder in FOLDERS.items() if key[0] != "quickstart" and cells_of(folder)]


@pytest.mark.parametrize("key", MEASURED, ids=" ".join)
def test_committed_results_belong_to_their_protocols(key: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What they record of their recipe, switches and sources is what the protocol has today."""
    protocol = with_choices(WITH_STUDY[key], RESULTS)
    trials = {(trial.task, trial.data): trial for trial in protocol.trials}
    for path in cells_of(FOLDERS[key]):
        found = read_cell(path)
        place = Cell(found.arm, trials[found.task, found.set], found.size, 0)
        name = protocol.source_of(found.arm, found.size)
        for run in found.runs:
            monkeypatch.setattr("sweet.bench.sources.TRAINING_VERSION", run.code or 1)
            sources = Sources(protocol, "parquet:x/cifar10", protocol.replicate(run.seed))  # of pre-training
            if run.source is not None and not protocol.from_checkpoint:
                assert run.source == sources.folder(name).name, path
        sources = Sources(protocol, "parquet:x/cifar10", img_size=place.trial.img_size)
        recipe = finetune_recipe(protocol, place, sources.recipe(name), f"parquet:x/{found.recipe['data']['source']}")
        today = description(protocol, place, recipe)
        assert dotted(found.recipe).items() <= dotted(today.recipe).items(), path
        assert {**today.switches, **found.switches} == today.switches, path


def test_a_plan_reads_the_results_below_out_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RESULTS)
    protocol = PROTOCOLS["table1", "nano"]
    alone, chosen = (dry_run(protocol, "table1", methods=["dmae"], out=out) for out in (None, RESULTS))
    assert chosen["pflops"] > alone["pflops"]  # its sweep has chosen more steps
    monkeypatch.chdir(tmp_path)
    assert dry_run(protocol, "table1", methods=["dmae"]) == alone
    nothing = dry_run(protocol, "table1", methods=["wave"], sizes=["L6H2"])
    assert (nothing["cells"], nothing["pflops"]) == (0, 0.0)


def test_images_are_called_by_their_folder_wherever_it_lies() -> None:
    called = {
        "parquet:cifar10": "cifar10", "parquet:/data/x/cifar10": "cifar10", "folder:photos/": "photos",
        "hub:alice/photos": "hub:alice/photos", "shapes:": "shapes:", "shapes:n=60,size=32": "shapes:n=60,size=32",
    }  # fmt: skip
    assert {spec: images_name(spec) for spec in called} == called


def test_a_cell_of_other_switches_goes_on_from_no_checkpoint_of_before() -> None:
    protocol = PROTOCOLS["table1", "nano"]
    cell, source = Cell("sweet", protocol.trials[0], "L3H3", 0), Path("somewhere")
    learned = Sources(protocol, "shapes:").recipe("dense")
    scaled = replace(protocol, arms={"sweet": replace(protocol.arms["sweet"], switches=SCALED)})
    folders = {
        run_folder(one, cell, finetune_recipe(one, cell, learned, "shapes:"), source) for one in (protocol, scaled)
    }
    assert len(folders) == 2


@pytest.mark.parametrize("place", ["nano", "micro", "small"])
def test_a_teacher_learns_no_label_that_settings_are_chosen_by(place: str) -> None:
    protocol = PROTOCOLS["settings", place]
    labels = Sources(protocol, "shapes:").teacher_recipe().data.labels
    assert labels is not None and protocol.validation is not None
    assert labels + protocol.validation <= protocol.images
