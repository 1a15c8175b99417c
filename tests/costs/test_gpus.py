"""Hours on GPUs, by hand."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sweet.cli import app
from sweet.costs.gpus import CORES, GpuGuess
from sweet.costs.plan import plan
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import PretrainRecipe


def test_by_hand() -> None:
    """1e21 FLOPs at half of 312 TFLOP/s: 6.41 million seconds; eight take an eighth."""
    one, eight = GpuGuess("a100", 0.5).table(1e21, 10**9)
    assert one["days"] == pytest.approx(74.19, abs=0.01) and eight["days"] == pytest.approx(9.27, abs=0.01)
    assert one["img_per_s"] == 156 and eight["img_per_s"] == 1248
    assert eight["loader_img_per_s_core"] == one["loader_img_per_s_core"] == round(156 / CORES)


def test_a_plan_says_what_it_assumes() -> None:
    result = plan(load_recipe(PretrainRecipe, "vit_b16_in1k"))
    assert result["gpus_assume"] == "1,281,167 images, h200 at 30 % of 989 TFLOP/s (bf16), 12 cores a GPU; not measured"
    assert "gpus" not in plan(load_recipe(PretrainRecipe, "quickstart"))
    half = plan(load_recipe(PretrainRecipe, "vit_b16_in1k"), GpuGuess(images=640_583))
    hours = [table["gpus"][0]["hours"] for table in (result, half)]  # type: ignore[index]
    assert hours[0] == pytest.approx(2 * hours[1], rel=0.01)


@pytest.mark.parametrize(
    ("option", "message"),
    [("--gpu=h20", "--gpu h20: unknown"), ("--utilisation=0", "--utilisation 0: "), ("--utilisation=1.1", "--util")],
)
def test_what_is_refused(option: str, message: str) -> None:
    result = CliRunner().invoke(app, ["plan", "nano", option])
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {message}")
