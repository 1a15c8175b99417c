"""``sweet plan``: arithmetic that agrees with what is really made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sweet.costs.plan import plan
from sweet.costs.table import size_table
from sweet.recipes.loader import load_recipe
from sweet.recipes.resolved import resolve, vit_config
from sweet.recipes.schema import PretrainRecipe
from sweet.template.sizes import Size

FACTORED = "template.learn=factored"


def recipe(name: str, *overrides: str) -> PretrainRecipe:
    return load_recipe(PretrainRecipe, name, list(overrides))


def test_a_plan_of_the_papers_recipe() -> None:
    planned = plan(recipe("vit_b16_in1k"))
    assert planned["encoder"] == "L12H12 eva, width 768"
    ranks = planned["ranks"]
    assert ranks[1:] == [768, 768]  # then U and V are stored in the core
    share = (ranks[0] * 768**2 + 144 * ranks[0]) / (144 * 768**2)
    assert planned["share_of_slices"] == round(share, 3)
    assert planned["template_params_m"] == pytest.approx(share * 144 * 768**2 / 1e6, abs=1e-3)
    assert [row["size"] for row in planned["sizes"]] == ["L12H12", "L3H12", "L6H12", "L6H6", "L12H6", "L12H3"]
    # RMSNorm + SwiGLU without a position table
    assert [row["params_m"] for row in planned["sizes"][1:]] == [22.623, 43.885, 11.326, 21.972, 5.678]
    assert 0 < planned["rebuild_share_of_step"] < 0.5
    assert "template.safetensors" in planned["writes"]


def test_the_sizes_shown_are_those_of_the_source() -> None:
    shown = [
        [row["size"] for row in plan(recipe("quickstart", *keys))["sizes"]]
        for keys in ([], ["model.depth=2", "model.heads=1"])
    ]
    assert shown == [["L6H6", "L1H6", "L3H6", "L3H3", "L6H3", "L6H1"], ["L2H1", "L1H1"]]


def test_the_plain_vit_is_the_papers_column() -> None:
    config = vit_config(recipe("vit_b16_in1k", "model.family=vit").model, 224)
    rows = size_table(config, [Size(3, 12), Size(12, 3)], 1000)
    assert [row["params_m"] for row in rows] == [22.777, 5.717]
    assert [round(row["gflops"], 2) for row in rows] == [8.61, 2.16]
    assert [round(row["gflops_with_attention"], 2) for row in rows] == [8.96, 2.51]
    assert rows[0]["params_m"] - rows[0]["params_no_head_m"] == pytest.approx(0.769)


def test_a_dense_plan_has_no_template() -> None:
    dense, tucker = plan(recipe("micro", "template.constraint=none")), plan(recipe("micro", FACTORED))
    assert "model.safetensors" in dense["writes"] and "template.safetensors" not in dense["writes"]
    assert not {"ranks", "template_params_m", "share_of_slices", "rebuild_share_of_step"} & dense.keys()
    rebuild = tucker["step_gflops"] - dense["step_gflops"]
    assert rebuild / tucker["step_gflops"] == pytest.approx(tucker["rebuild_share_of_step"], abs=1e-3)


def test_a_larger_batch_costs_more_and_rebuilds_no_more() -> None:
    one, two = (plan(recipe("micro", FACTORED, f"batch_size={size}")) for size in (64, 128))
    dense = plan(recipe("micro", "batch_size=64", "template.constraint=none"))
    assert two["step_gflops"] - one["step_gflops"] == pytest.approx(dense["step_gflops"], rel=1e-3)
    assert two["rebuild_share_of_step"] < one["rebuild_share_of_step"]


@pytest.mark.parametrize("more", [(), (FACTORED,), (FACTORED, "template.ranks=[9,12,16]")])
def test_numbers_are_those_of_the_template_that_is_written(
    tiny: Callable[..., PretrainRecipe], tmp_path: Path, more: tuple[str, ...]
) -> None:
    from sweet.describe import inspect
    from sweet.training.pretrain import pretrain

    small = tiny("max_steps=1", *more)
    pretrain(small, tmp_path / "template", quiet=True)
    planned, written = plan(small), inspect(tmp_path / "template")
    assert planned["ranks"] == written["ranks"]
    assert planned["template_params_m"] == written["parameters_m"]
    assert planned["share_of_slices"] == written["share_of_slices"]


def test_plans_of_the_baselines() -> None:
    tucker, linear, tiles, small = (
        plan(recipe("vit_b16_in1k", *overrides))
        for overrides in (
            (),
            ("template.constraint=linear",),
            ("template.constraint=kronecker",),
            ("template.constraint=kronecker", "template.tile=64"),
        )
    )
    assert linear["template_params_m"] == pytest.approx(24 * 768**2 / 1e6, abs=1e-3)
    assert (tiles["tile"], small["tile"]) == (192, 64)
    # as many templates as a core has numbers; scalers on top, more of them for smaller tiles
    assert tucker["template_params_m"] * 0.95 < tiles["template_params_m"] < tucker["template_params_m"] * 1.05
    assert small["template_params_m"] > tiles["template_params_m"]
    for planned in (linear, tiles, small):
        assert "ranks" not in planned and "template.safetensors" in planned["writes"]
        assert 0 <= planned["rebuild_share_of_step"] < 0.1


def test_ranks_of_a_recipe_win_over_the_default() -> None:
    assert resolve(recipe("micro", FACTORED, "template.ranks=[5, 6, 7]")).ranks == (5, 6, 7)
    assert resolve(recipe("micro", FACTORED)).ranks == (48, 192, 192)
    assert resolve(recipe("micro")).ranks == (144, 192, 192)


@pytest.mark.parametrize(("size", "theta"), [(32, 100.0), (64, 100.0), (128, 10000.0)])
def test_the_rotary_base_follows_the_grid(size: int, theta: float) -> None:
    assert vit_config(recipe("micro").model, size).rope_theta == theta
    assert vit_config(recipe("micro", "model.rope_theta=50").model, size).rope_theta == 50


def test_a_plan_is_json() -> None:
    assert json.loads(json.dumps(plan(recipe("quickstart"))))["recipe"] == "quickstart"
